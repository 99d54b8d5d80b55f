"""Partitioners: who holds which rows. Pure functions of labels and a generator to index lists.

One file each; registered as kind `partition`."""
