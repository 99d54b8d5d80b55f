"""Synthetic examples of rare classes and unseen devices: generators, what trains them, plans and gates."""
