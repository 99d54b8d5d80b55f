"""Does the recall of one class fall while the run goes on? A cumulative sum per class, against the class's own past.

Labels of a rare class can be flipped without the accuracy showing it: it falls by no more than the class's share of the
rows ("Poisoned Acoustics", arXiv 2602.22258). The recall of the class shows it, if the run was honest before.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

WINDOW = 8
"""Scored rounds that a recall is compared with; no alarm before there are as many."""
SLACK = 0.5
"""What a round may lie below its past without counting, in units of the past's spread."""
LEAST_SPREAD = 0.01
"""Smallest spread assumed, in recall."""
LEAST_ROWS = 2
"""Smallest spread assumed, in scored rows of the class: one or two that are missed from some round on are no alarm."""
THRESHOLD = 32.0
"""Sum of a class that is an alarm; how it was set, and how often it is wrong: experiments/robust."""


@dataclass
class RecallDrop:
    """The cumulative sum of one class (Page, Biometrika 1954), recall by recall.

    While the sum is 0, the last `WINDOW` recalls are the past: their median is what is expected, and 1.4826 times the
    median distance from it their spread, at least `LEAST_SPREAD` and `LEAST_ROWS`. A recall adds
    (expected - recall) / spread - `SLACK`; the sum does not go below 0. While it is above 0 the past stays as it is, so
    that a lasting fall is not taken for the new normal.

    Attributes:
        sum: the present sum.
        expected: the past's median while the sum is above 0.
        history: the recalls that make the past.

    Example:
        >>> watch = RecallDrop()
        >>> rises = [watch.add(0.8 + 0.01 * (n % 2)) for n in range(10)]
        >>> falls = [watch.add(0.6) for _ in range(2)]
        >>> max(rises) < 1, falls[-1] > THRESHOLD
        (True, True)
        >>> lower = [0.95] * 10 + [0.93] * 40
        >>> round(largest_drop(lower)), round(largest_drop(lower, rows=60))
        (60, 4)
    """

    sum: float = 0.0
    expected: float = math.nan
    history: list[float] = field(default_factory=list)

    def add(self, recall: float, rows: float = math.inf) -> float:
        """Take in the recall of the next scored round; returns the sum. A recall that is not defined is passed over.

        Args:
            rows: scored rows of the class in this round, as far as known.
        """
        if not math.isfinite(recall):
            return self.sum
        if len(self.history) < WINDOW:
            self.history.append(recall)
            return self.sum
        self.expected = statistics.median(self.history)
        spread = 1.4826 * statistics.median(abs(one - self.expected) for one in self.history)
        least = max(LEAST_SPREAD, LEAST_ROWS / rows)
        self.sum = max(0.0, self.sum + (self.expected - recall) / max(spread, least) - SLACK)
        if self.sum == 0:
            self.history = [*self.history[1:], recall]
        return self.sum


def largest_drop(recalls: Sequence[float], rows: float = math.inf) -> float:
    """The largest sum of a class over its recalls in order; ``rows``: its scored rows in a round."""
    watch = RecallDrop()
    return max((watch.add(recall, rows) for recall in recalls), default=0.0)


__all__ = ["LEAST_ROWS", "LEAST_SPREAD", "SLACK", "THRESHOLD", "WINDOW", "RecallDrop", "largest_drop"]
