"""What a `ServerOptimizer`, the lanes that sum its clients' replies, and its local objective agree on."""

SINCE = "optimizer-since"
"""Scalar in the train message's config: the round in which the optimiser began. Client state
with another value belongs to an optimiser that a `Reset` has replaced."""

CLIENT = "client"
"""Column of `Clients`: stable client ids, integers."""

SQUARED_NORM = "squared_norm"
"""A client scalar that no client sends: the squared L2 norm of its update, computed from the weights it sent."""

CLIENTS = "x.clients"
"""In a merged reply: the scalars of every client it was summed from, one array [K] per scalar."""

MEANS = "x.means"
"""Prefix of the keys of a merged reply's additional means: ``x.means.<name>``."""
