"""Confusion matrices -> metrics, intervals, significance.

Integer matrices sum exactly over clients; every reported number derives from the sum."""
