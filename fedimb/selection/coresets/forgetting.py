"""Forgetting events: how often a row that was classified rightly is wrong an epoch later; the most forgotten are kept.

Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning", ICLR 2019. Rows never
classified rightly count as forgotten without end, as there. Counted between epochs, not between batches. Most rows are
forgotten equally often, so ties are broken at random (ours): by position they would favour whatever comes first.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, ScoreRule


def forgetting_events(history: Tensor, labels: Tensor) -> Tensor:
    """[e, n, C] probabilities, [n] int64 -> [n] float32 right-to-wrong steps, infinite where never right."""
    right = history.argmax(-1) == labels
    events = (right[:-1] & ~right[1:]).sum(0).float()
    return events.masked_fill(~right.any(0), torch.inf)


@register("coreset", "forgetting")
class Forgetting(ScoreRule):
    """Keeps the most forgotten.

    Args:
        never_learned_first: whether rows never classified rightly come first, as in the paper; with label noise they
            are often the wrong ones. False: they have no events.
    """

    needs = frozenset({"history"})

    def __init__(self, never_learned_first: bool = True) -> None:
        self.never_learned_first = never_learned_first

    def score(self, candidates: Candidates, rows: Tensor) -> Tensor:
        """[len(rows)] float32: events, and a random part below 1 that orders equals."""
        events = forgetting_events(candidates.given("history")[:, rows], candidates.labels[rows])
        highest = float(len(candidates.given("history"))) if self.never_learned_first else 0.0
        draw = torch.rand(len(rows), generator=candidates.generator)
        return events.masked_fill(torch.isinf(events), highest) + draw
