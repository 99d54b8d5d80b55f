"""FedCS: drop the rows that separate their class from the others most or least clearly, frequent classes first.

FedCS (CVPR 2025), following its released code: DC_i = min over j != c of || z_i - g_j || - || z_i - g_c || with the
federation's class centres g (`centres.median_of_centres`); of each class with (n_max - n_c) / n_max <= beta the p_f
rows with the largest |DC| are dropped, then a fraction p_l of the remaining rows. The released code never gates out
class 0; this is not copied. That n are the client's own counts is inferred. Budgets are exact here: p_l is given, p_f
follows from ``keep``, and if the prunable classes have too few rows, the last stage drops the rest.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.budgets import apportion
from fedimb.selection.coresets.base import Candidates, ScoreRule, by_class
from fedimb.selection.coverage import squared_distances


def distance_contrast(features: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """DC [n] float64 of features [n, d]; 0 if the row's class has no centre, or no other class has one."""
    known = ~torch.isnan(centres).any(1)
    shift = centres[known].double().mean(0) if bool(known.any()) else torch.zeros(centres.shape[1], dtype=torch.float64)
    anchors = torch.where(known[:, None], centres.double() - shift, 0.0)
    distance = squared_distances(features.double() - shift, anchors).sqrt()
    own = distance.gather(1, labels[:, None])[:, 0]
    others = distance.masked_fill(~known, torch.inf).scatter(1, labels[:, None], torch.inf).amin(1)
    contrast = torch.where(known[labels], others - own, 0.0)
    return torch.where(torch.isinf(contrast), 0.0, contrast)


@register("coreset", "fedcs")
class FedCS(ScoreRule):
    """Keeps the smallest |DC|, per class if numbers are given, else by the two stages above.

    Args:
        beta: how much smaller than the client's largest class, relatively, a class may be to be pruned in the first
            stage.
        p_l: share of the rows left by the first stage that the second drops, over all classes.

    Raises:
        ConfigError: beta outside [0, 1], p_l outside [0, 1).
    """

    needs = frozenset({"features", "centres"})

    def __init__(self, beta: float = 0.5, p_l: float = 0.1) -> None:
        self.beta = in_range("coreset 'fedcs'", "beta", beta, 0, 1)
        self.p_l = in_range("coreset 'fedcs'", "p_l", p_l, 0, 1, high_allowed=False)

    def score(self, candidates: Candidates, rows: Tensor) -> Tensor:
        """-|DC|."""
        features, labels = candidates.given("features")[rows], candidates.labels[rows]
        return -distance_contrast(features, labels, candidates.given("centres")).abs()

    def decide(self, candidates: Candidates, keep: int) -> Tensor:
        """Both stages. Every class of the client keeps a row while ``keep`` allows."""
        have = candidates.counts()
        free = (have > 0) & ((have.max() - have) <= self.beta * have.max())
        room = torch.where(free, have - 1, 0)
        first = min(len(candidates.labels) - round_up(keep / (1 - self.p_l)), int(room.sum()))
        left = have - apportion(room, room, max(0, first))
        rows = by_class(candidates, left, lambda rows, count: self._within(candidates, rows, count))
        order = rows[torch.argsort(self.score(candidates, rows), descending=True, stable=True)]
        held = torch.unique(candidates.labels).tolist()
        spared = torch.stack([order[candidates.labels[order] == label][0] for label in held])[:keep]
        others = order[~torch.isin(order, spared)]
        return torch.cat([spared, others[: keep - len(spared)]])


def round_up(value: float) -> int:
    """Ceiling of ``value``, tolerant of rounding errors: 9 / (1 - .1) gives 10."""
    return -int(-(value - 1e-9) // 1)
