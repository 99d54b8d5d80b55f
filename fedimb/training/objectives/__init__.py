"""Local objectives: terms and regularisers that an aggregator or method adds to the clients' local training.

One file each; registered as kind `objective`."""
