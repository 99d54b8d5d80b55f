"""The files of the method that trains nothing, as templates: `fedimb.bench.noop` writes them out as a package."""
