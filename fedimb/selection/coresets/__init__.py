"""Rules that choose which of a client's rows to train on, one file each. Registered as kind `coreset`."""
