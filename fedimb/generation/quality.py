"""Which samples are good enough to send, and how good they are.

The gate is FedSSG's Stage C as reconstructed (arXiv 2604.26324): a classifier must recognise the class (p(y) >= 0.5; of
rare classes the best 70 % pass too), and the sample must lie further from every real row than the closest 5 % of real
rows lie from each other. Passing says nothing about privacy: membership can be inferred just as well from sets that
pass (Yao et al., "The DCR Delusion", ESORICS 2025). Chosen here: real-real distances are those to the nearest other
real row, the percentile is taken per class, and samples that are not finite are dropped first. Distances between whole
sets are in `fedimb.generation.fidelity`.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedimb.errors import ConfigError, DataError

REASONS = ("not_finite", "label", "copy")
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class GateResult:
    """The result of the quality gate.

    Attributes:
        keep: [n] bool.
        dropped: reason (one of `REASONS`) -> [C] int64 counts; a sample counts for the first reason that applies.
    """

    keep: Tensor
    dropped: dict[str, Tensor]

    def report(self) -> dict[str, object]:
        """As a JSON-serializable dict."""
        return {
            "kept": int(self.keep.sum()),
            "of": len(self.keep),
            "dropped": {reason: counts.tolist() for reason, counts in self.dropped.items()},
        }


def label_gate(
    probabilities: Tensor, y: Tensor, rare: Collection[int] = (), least: float = 0.5, rare_share: float = 0.7
) -> Tensor:
    """[n] bool: p(y) >= ``least``, or y is rare and p(y) is among the best ``rare_share`` of its class (rounded up).

    Of two equal p(y) the earlier sample ranks higher. NaN never passes.

    Args:
        probabilities: [n, C] float of a classifier; for a pool sent to clients, one that was not trained on samples.
        y: [n] int64, the class each sample was generated for.
        rare: class ids.

    Raises:
        ConfigError: a share outside [0, 1].
        DataError: probabilities and labels that do not fit.
    """
    for name, value in (("least", least), ("rare_share", rare_share)):
        if not 0 <= value <= 1:
            raise ConfigError(f"quality gate: {name}={value}: give a share from 0 to 1")
    _fits(probabilities, y)
    found = probabilities.double().gather(1, y[:, None])[:, 0] if len(y) else torch.zeros(0, dtype=torch.float64)
    keep = found >= least
    for c in rare:
        members = torch.nonzero((y == c) & ~found.isnan())[:, 0]
        best = members[found[members].argsort(descending=True, stable=True)]
        keep[best[: math.ceil(rare_share * int((y == c).sum()) - 1e-9)]] = True
    return keep


def nearest(rows: Tensor, others: Tensor, same: bool = False) -> Tensor:
    """Euclidean distance of each of ``rows`` [n, d] to the nearest of ``others`` [m, d]: [n] float64.

    Infinite if there is none. ``same``: both are the same set, and a row is not compared with itself.
    """
    a, b = rows.double(), others.double()
    found = torch.full((len(a),), math.inf, dtype=torch.float64)
    if len(b) == 0:
        return found
    for start in range(0, len(a), _CHUNK):
        # No matrix products: their rounding would give an exact copy a distance above 0.
        part = torch.cdist(a[start : start + _CHUNK], b, compute_mode="donot_use_mm_for_euclid_dist")
        if same:
            part[torch.arange(len(part)), start + torch.arange(len(part))] = math.inf
        found[start : start + len(part)] = part.min(dim=1).values
    return found


def copy_threshold(real: Tensor, y: Tensor, n_classes: int, share: float = 0.05) -> Tensor:
    """[C] float64: the ``share`` quantile of real rows' distances to their nearest other real row, by class.

    A class without real rows gets the quantile over all rows; with fewer than two real rows in total it is 0.
    """
    between = nearest(real, real, same=True)
    if len(real) < 2:
        return torch.zeros(n_classes, dtype=torch.float64)
    pooled = torch.quantile(between, share)
    found = pooled.repeat(n_classes)
    for c in y.unique().tolist():
        found[c] = torch.quantile(between[y == c], share)
    return found


def copy_gate(
    made: Tensor, made_y: Tensor, real: Tensor, real_y: Tensor, n_classes: int, share: float = 0.05
) -> Tensor:
    """[n] bool: further from every real row, of any class, than `copy_threshold` of the sample's class.

    Args:
        made, real: [n, d] and [m, d] features of the same extractor.
        made_y, real_y: int64 class ids.

    Raises:
        DataError: features that do not fit.
    """
    if made.dim() != 2 or real.dim() != 2 or made.shape[1] != real.shape[1]:
        raise DataError(f"features must be [n, d] of one d; got {list(made.shape)} and {list(real.shape)}")
    return nearest(made, real) > copy_threshold(real, real_y, n_classes, share)[made_y]


def quality_gate(
    probabilities: Tensor,
    made: Tensor,
    made_y: Tensor,
    real: Tensor,
    real_y: Tensor,
    rare: Collection[int] = (),
    least: float = 0.5,
    rare_share: float = 0.7,
    copy_share: float = 0.05,
) -> GateResult:
    """Apply both gates, and count what was dropped and why.

    Args:
        probabilities: [n, C], see `label_gate`.
        made, made_y: features [n, d] and classes of the samples.
        real, real_y: features [m, d] and classes of the real rows the generator learned from.
        rare, least, rare_share: see `label_gate`.
        copy_share: see `copy_threshold`.

    Raises:
        ConfigError, DataError: see `label_gate` and `copy_gate`.
    """
    n_classes = probabilities.shape[1]
    finite = torch.isfinite(made).all(dim=1) & torch.isfinite(probabilities).all(dim=1)
    recognised = torch.zeros_like(finite)
    # Samples that are not finite are excluded: they would take places among the best of a rare class.
    recognised[finite] = label_gate(probabilities[finite], made_y[finite], rare, least, rare_share)
    new = copy_gate(made, made_y, real, real_y, n_classes, copy_share)
    causes = (~finite, finite & ~recognised, recognised & ~new)
    dropped = {
        reason: torch.bincount(made_y[cause], minlength=n_classes)
        for reason, cause in zip(REASONS, causes, strict=True)
    }
    return GateResult(recognised & new, dropped)


@dataclass(frozen=True)
class Agreement:
    """How often an independent classifier recognises the class a sample was generated for.

    Attributes:
        overall: share over all samples; NaN without samples.
        per_class: [C]; NaN for a class without samples.
        verdict: ``sound``, or ``inconclusive``: training on such samples proves nothing about the method.
    """

    overall: float
    per_class: tuple[float, ...]
    verdict: Literal["sound", "inconclusive"]


def agreement(predicted: Tensor, y: Tensor, n_classes: int, least: float = 0.8) -> Agreement:
    """Agreement of ``predicted`` [n] int64 with ``y`` [n] int64; below ``least``, or undefined: inconclusive.

    Independent means trained on other real rows than the generator, and not the classifier of the gate.

    Raises:
        DataError: tensors of different length.
    """
    if predicted.shape != y.shape:
        raise DataError(f"one prediction per sample is needed; got {list(predicted.shape)} for {list(y.shape)}")
    hits = (predicted == y).double()
    total = torch.bincount(y, minlength=n_classes).double()
    found = torch.bincount(y, weights=hits, minlength=n_classes)
    overall = float(hits.mean()) if len(y) else math.nan
    per_class = tuple((found / total).tolist())  # 0 / 0 is NaN: a class without samples
    return Agreement(overall, per_class, "sound" if overall >= least else "inconclusive")


def _fits(probabilities: Tensor, y: Tensor) -> None:
    if probabilities.dim() != 2 or y.shape != (len(probabilities),):
        raise DataError(f"give probabilities [n, C] and labels [n]; got {list(probabilities.shape)}, {list(y.shape)}")
    if len(y) and (int(y.min()) < 0 or int(y.max()) >= probabilities.shape[1]):
        raise DataError(f"labels must lie in 0 to {probabilities.shape[1] - 1}; got {int(y.min())} to {int(y.max())}")
