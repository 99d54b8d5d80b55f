"""EL2N: the length of the error vector early in training; large errors are kept.

Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021: || softmax(z) - onehot(y) ||_2, averaged over
runs at one early epoch. Here, as in SCOPE's comparison, averaged over the epochs of one local warm-up.
"""

import torch
from torch import Tensor

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, ScoreRule


def error_length(probabilities: Tensor, labels: Tensor) -> Tensor:
    """[..., n, C] probabilities and [n] labels -> [n] float32, || p - onehot(y) || averaged over leading dimensions."""
    onehot = torch.nn.functional.one_hot(labels, probabilities.shape[-1])
    return (probabilities - onehot).norm(dim=-1).reshape(-1, len(labels)).mean(0)


@register("coreset", "el2n")
class EL2N(ScoreRule):
    """Keeps the highest EL2N.

    Args:
        epochs: number of the warm-up's first epochs to average; null: all.

    Raises:
        ConfigError: fewer than one epoch.
    """

    needs = frozenset({"history"})

    def __init__(self, epochs: int | None = None) -> None:
        if epochs is not None and epochs < 1:
            raise ConfigError(f"coreset 'el2n': epochs={epochs}: give at least 1, or null for all")
        self.epochs = epochs

    def score(self, candidates: Candidates, rows: Tensor) -> Tensor:
        """[len(rows)], 0 to sqrt(2)."""
        return error_length(candidates.given("history")[: self.epochs, rows], candidates.labels[rows])
