"""Aggregation of updates: Flower's stock strategies by name, with the flags that the loop needs.

Registered as kind `aggregator`."""
