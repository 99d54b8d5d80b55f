"""``fedimb bench``: what the platform costs, as ratios against the same work done without it and by stock Flower.

Every measurement is a process of its own; nothing runs beside it.
"""
