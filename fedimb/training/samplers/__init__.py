"""Samplers: the order in which a client's rows are visited in one epoch.

One file each; registered as kind `sampler`."""
