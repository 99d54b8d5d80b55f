"""Partitioners: which client holds which rows. Pure functions from labels and a generator to index lists.

One file each; registered as kind `partition`."""
