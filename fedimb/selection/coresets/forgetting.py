"""Forgetting events: how often a correctly classified row is wrong an epoch later; the most forgotten rows are kept.

Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning", ICLR 2019. As in the
paper, rows never classified correctly count as forgotten infinitely often. Events are counted between epochs, not
between batches. Most rows are forgotten equally often, so ties are broken at random: by position they would favour the
first rows.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, ScoreRule


def forgetting_events(history: Tensor, labels: Tensor) -> Tensor:
    """[e, n, C] probabilities, [n] int64 -> [n] float32 right-to-wrong steps, infinite if never right."""
    right = history.argmax(-1) == labels
    events = (right[:-1] & ~right[1:]).sum(0).float()
    return events.masked_fill(~right.any(0), torch.inf)


@register("coreset", "forgetting")
class Forgetting(ScoreRule):
    """Keeps the most forgotten.

    Args:
        never_learned_first: whether rows never classified correctly come first, as in the paper; with label noise these
            are often mislabelled. False: they count as having no events.
    """

    needs = frozenset({"history"})

    def __init__(self, never_learned_first: bool = True) -> None:
        self.never_learned_first = never_learned_first

    def score(self, candidates: Candidates, rows: Tensor) -> Tensor:
        """[len(rows)] float32: events, plus a random number below 1 that breaks ties."""
        events = forgetting_events(candidates.given("history")[:, rows], candidates.labels[rows])
        highest = float(len(candidates.given("history"))) if self.never_learned_first else 0.0
        draw = torch.rand(len(rows), generator=candidates.generator)
        return events.masked_fill(torch.isinf(events), highest) + draw
