"""From a path to a data YAML: what the files there are, which settings read them, and what is not sure about it."""
