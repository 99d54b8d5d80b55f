"""How updates merge: Flower's stock strategies by name, with the flags the loop needs.

Registered as kind `aggregator`."""
