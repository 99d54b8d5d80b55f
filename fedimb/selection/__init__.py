"""Choosing rows: scores, prototypes, quotas, coverage. Pure functions on tensors; they know no client and no message."""
