"""Rules that choose which unlabelled rows to have labelled, one file each. Registered as kind `query`."""
