"""Row selection: scores, prototypes, quotas, coverage. Pure functions on tensors, without clients or messages."""
