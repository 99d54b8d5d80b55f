"""Confusion matrices -> metrics, intervals, significance.

Integer matrices sum exactly over clients; every reported number is computed from the sum."""
