"""The distillation step: a model learns what others say of the same rows. For FedMD's clients and FedDF's server.

Li & Wang, "FedMD: Heterogenous Federated Learning via Model Distillation", 2019 (arXiv 1910.03581); Lin et al.,
"Ensemble Distillation for Robust Model Fusion in Federated Learning", NeurIPS 2020; Itahara et al.,
"Distillation-Based Semi-Supervised Federated Learning for Communication-Efficient Collaborative Training with Non-IID
Private Data" (DS-FL), IEEE TMC 2023. Whom each class is taken from, and how much a row weighs, is in
`fedimb.training.fusion`. HeroCrystal's step is there too: it trains a linear head on features that stay as they are,
with a learning rate that follows their length.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from fedimb.models.base import Classifier
from fedimb.training.fusion import NEVER, Targets, fused_logits
from fedimb.training.local import LocalResult, train_locally
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

Balance = Literal["none", "entropy", "complement"]


def consensus_of(
    logits: Tensor, annotated: Tensor, aggregation: Literal["mean", "entropy_reduction"], temperature: float
) -> Tensor:
    """What K teachers say together, each only of the classes that it annotates.

    Args:
        logits: [K, n, C].
        annotated: [K, C] bool.
        aggregation: ``mean``: of the logits (FedMD). ``entropy_reduction``: the mean of the probabilities over
            ``temperature``, whose softmax is less uncertain than the mean itself (DS-FL); a teacher's probabilities
            are over the classes that it annotates.
        temperature: of ``entropy_reduction``, > 0; 0.1 in its paper.

    Returns:
        Logits [n, C]; `fedimb.training.fusion.NEVER` for a class that nobody annotates.

    Example:
        >>> logits = torch.tensor([[[0.0, 0.0]], [[0.0, 2.0]]]).double()  # two teachers, one row
        >>> both = torch.ones(2, 2, dtype=torch.bool)
        >>> consensus_of(logits, both, "mean", 0.1).softmax(dim=1).round(decimals=2).tolist()
        [[0.27, 0.73]]
        >>> consensus_of(logits, both, "entropy_reduction", 0.1).softmax(dim=1).round(decimals=2).tolist()
        [[0.02, 0.98]]
    """
    if aggregation == "mean":
        return fused_logits(logits, annotated, None)
    probabilities = logits.masked_fill(~annotated[:, None], NEVER).softmax(dim=2)
    return fused_logits(probabilities / temperature, annotated, None)


class _Rowwise(nn.Module):
    """A loss whose labels are positions of rows, of which it knows what to teach; rows weigh differently."""

    def __init__(self, taught: Tensor, weights: Tensor, known: Tensor, factor: float) -> None:
        super().__init__()
        self.factor = factor
        for name, value in (("taught", taught), ("weights", weights), ("known", known)):
            self.register_buffer(name, value, persistent=False)

    taught: Tensor
    weights: Tensor
    known: Tensor

    def rows(self, logits: Tensor, taught: Tensor) -> Tensor:
        """[b] from what the model says and what it is taught, both [b, C]."""
        raise NotImplementedError

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [b, C] and positions [b] int64 -> the weighted mean over the rows, times the factor."""
        weights = self.weights[labels]
        return self.factor * (weights * self.rows(logits, self.taught[labels])).sum() / weights.sum()


class SoftTargets(_Rowwise):
    """KL(taught || softmax(logits)), over the known classes; others are neither raised nor lowered.

    Args:
        targets: of all rows, see `fedimb.training.fusion.Targets`.
        known: [C] bool.
        factor: on the loss, > 0.
    """

    def __init__(self, targets: Targets, known: Tensor, factor: float = 1.0) -> None:
        super().__init__(targets.probabilities, targets.weights, known, factor)

    def rows(self, logits: Tensor, taught: Tensor) -> Tensor:
        """See `_Rowwise.rows`."""
        logs = log_softmax(logits.masked_fill(~self.known, NEVER), dim=1)
        return (torch.xlogy(taught, taught) - taught * logs).sum(dim=1)


class LogitMatch(_Rowwise):
    """Mean over the known classes of |logit - taught logit|, as FedMD's authors match them.

    Args:
        logits: [n, C] that are taught.
        weights: [n] of the rows, in [0, 1].
        known: [C] bool.
        factor: on the loss, > 0.
    """

    def __init__(self, logits: Tensor, weights: Tensor, known: Tensor, factor: float = 1.0) -> None:
        super().__init__(logits, weights, known, factor)

    def rows(self, logits: Tensor, taught: Tensor) -> Tensor:
        """See `_Rowwise.rows`."""
        return (logits - taught).abs()[:, self.known].mean(dim=1)


def distil(
    model: Classifier, x: Tensor, loss: SoftTargets | LogitMatch, spec: TrainSpec, generator: torch.Generator
) -> LocalResult:
    """Train a model, in place, on what is taught about rows x [n, *shape]; rows of weight 0 are left out.

    Args:
        loss: of these rows.
        spec: optimiser, steps and rows per step. Its own loss, sampler, objectives and augmentations do not apply: what
            is taught was said of the rows as they are.
        generator: order of the rows.
    """
    device = next(model.parameters()).device
    rows = torch.nonzero(loss.weights > 0).ravel()
    own = spec.change(loss=loss.to(device), sampler=Shuffle(), objectives=(), augmentations=(), extra=None, labels=None)
    return train_locally(model, x[rows].to(device), rows.to(device), own, generator)


def balance_factor(counts: Tensor, balance: Balance, classes: int | None = None) -> float:
    """Factor on a distillation by how evenly a client's rows fall on the classes.

    ``entropy``: H / log C, with the entropy H of the classes' shares: 1 if all classes have as many rows, 0 if there
    is one. ``complement``: 1 minus it, so that who knows few classes learns more from others. ``none``: 1. From the
    class-incremental learner LT-CIL (entropy-aware dynamic distillation), without its schedule over time.

    Args:
        counts: rows of each class; classes without rows may be missing.
        classes: C; None: as many as there are counts.

    Example:
        >>> [round(balance_factor(torch.tensor([3, 1, 0, 0]), one), 3) for one in ("none", "entropy", "complement")]
        [1.0, 0.406, 0.594]
    """
    if balance == "none":
        return 1.0
    total, most = float(counts.sum()), math.log(len(counts) if classes is None else classes)
    shares = [count / total for count in counts.tolist() if count] if total else []
    relative = -sum(share * math.log(share) for share in shares) / most if most else 0.0
    return relative if balance == "entropy" else 1.0 - relative
