"""Which parts cannot be combined, and why: one table of rules over the flags that parts declare.

A rule looks at a whole combination and returns a reason or None; a file holds the rules about one thing. `matrix`
applies the same rules to every pair, so the printed matrix and what a run refuses cannot disagree.
"""

from fedimb.config.combinations.base import Combination, Rule
from fedimb.config.combinations.labels import tasks_of
from fedimb.config.combinations.rules import RULES, Cell, matrix, refusal

__all__ = ["RULES", "Cell", "Combination", "Rule", "matrix", "refusal", "tasks_of"]
