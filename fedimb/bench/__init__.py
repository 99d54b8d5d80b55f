"""``fedimb bench``: the cost of the platform, as ratios to the same work in plain torch and in stock Flower.

Every measurement is a separate process, and nothing else runs at the same time.
"""
