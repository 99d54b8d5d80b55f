"""Rules that choose which unlabelled rows to label next, one file each. Registered as kind `query`."""
