"""Leakage audits: does a synthetic batch give away the records it was made from? `gate.audit` decides."""
