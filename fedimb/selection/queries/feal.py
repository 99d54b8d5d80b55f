"""Uncertain rows for which the global model has little evidence, at most one per dense region.

FEAL: Chen et al., "Think Twice Before Selection: Federated Evidential Active Learning for Medical Image Analysis with
Domain Shifts", CVPR 2024. Evidence alpha = relu(logit) + 1 parametrises a Dirichlet. Score = its differential entropy
under the global model, times the data uncertainty of both models, each the expected entropy of the class under its
Dirichlet. Then greedily in order of score with neighbour relaxation: a row is skipped only if it has at least
``neighbours`` rows more similar than ``cosine`` in the local model's features and one of its nearest is already chosen.

Details not in the paper: the entropy is normalised by its minimum and maximum in the pool, and skipped rows are used,
best first, when the pool runs out. The paper trains an evidential head; with another loss the formula still applies,
but means less.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.prototypes import unit
from fedimb.selection.queries.base import QueryInput, QueryRule

_CELLS = 8_000_000  # similarities per block, 32 MB of float32


def evidence(logits: Tensor) -> Tensor:
    """Dirichlet parameters relu(logit) + 1: [n, C] -> [n, C] float64, at least 1."""
    return logits.double().relu() + 1


def dirichlet_entropy(alpha: Tensor) -> Tensor:
    """Differential entropy: ln B(alpha) + (S - C) psi(S) - sum_c (alpha_c - 1) psi(alpha_c): [n, C] -> [n]."""
    total, n_classes = alpha.sum(1), alpha.shape[1]
    log_beta = alpha.lgamma().sum(1) - total.lgamma()
    return log_beta + (total - n_classes) * total.digamma() - ((alpha - 1) * alpha.digamma()).sum(1)


def data_uncertainty(alpha: Tensor) -> Tensor:
    """Expected entropy of the class: sum_c alpha_c / S (psi(S + 1) - psi(alpha_c + 1)): [n, C] -> [n], in [0, ln C]."""
    total = alpha.sum(1, keepdim=True)
    return (alpha / total * ((total + 1).digamma() - (alpha + 1).digamma())).sum(1)


@register("query", "feal")
class Feal(QueryRule):
    """Uncertain rows with little evidence under the global model, at most one per dense region.

    Args:
        neighbours: number of similar rows that make a region dense, and number of nearest rows that are checked.
        cosine: similarity above which a row counts as near.

    Raises:
        ConfigError: neighbours below 1, or a cosine outside [-1, 1].
    """

    models = frozenset({"global", "local"})

    def __init__(self, neighbours: int = 5, cosine: float = 0.85) -> None:
        self.neighbours = int(in_range("query 'feal'", "neighbours", neighbours, 1))
        self.cosine = in_range("query 'feal'", "cosine", cosine, -1, 1)

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        seen, own = (evidence(query.pool[model].logits) for model in ("global", "local"))
        doubt = dirichlet_entropy(seen)
        width = doubt.max() - doubt.min()
        # All equal: the factor carries no information, and 0 would hide the other one.
        doubt = (doubt - doubt.min()) / width if width > 0 else torch.ones_like(doubt)
        order = (doubt * (data_uncertainty(seen) + data_uncertainty(own))).argsort(descending=True, stable=True)
        return self._relaxed(order, unit(query.pool["local"].features).float(), query.budget)

    def _relaxed(self, order: Tensor, features: Tensor, count: int) -> Tensor:
        taken = torch.zeros(len(order), dtype=torch.bool)
        chosen: list[int] = []
        passed: list[int] = []
        if len(order) <= self.neighbours:
            return order[:count]
        for block in order.split(max(1, min(count, _CELLS // len(order)))):
            similar = features[block] @ features.T
            similar[torch.arange(len(block)), block] = -torch.inf
            values, nearest = similar.topk(self.neighbours, dim=1)
            for row, near, crowded in zip(block.tolist(), nearest, (values[:, -1] > self.cosine).tolist(), strict=True):
                if crowded and taken[near].any():
                    passed.append(row)
                    continue
                taken[row] = True
                chosen.append(row)
                if len(chosen) == count:
                    return torch.tensor(chosen)
        return torch.tensor(chosen + passed[: count - len(chosen)])
