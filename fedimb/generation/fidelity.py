"""How far generated rows lie from real ones, per class, in a given feature space.

If both sets have 200 rows or more: the Frechet distance of two Gaussians (Dowson and Landau 1982; FID, Heusel et
al., NeurIPS 2017) and the unbiased kernel distance (KID, Binkowski et al., ICLR 2018: cubic kernel). Below that neither
is meaningful, and precision and recall by nearest neighbours are computed instead (Kynkaanniemi et al., NeurIPS 2019).
Not comparable with published FIDs unless the features are Inception's.
"""

import math

import torch
from torch import Tensor

from fedimb.errors import DataError
from fedimb.generation.quality import nearest

Score = dict[str, float]


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of features [n, d] and [m, d], n, m >= 2; float64.

    Biased upwards for few rows: compare only equal n.
    """
    _check(a, b)
    x, y = a.double(), b.double()
    first, second = torch.cov(x.T).reshape(x.shape[1], -1), torch.cov(y.T).reshape(x.shape[1], -1)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # (S_a S_b)^(1/2) has the trace of (S_a^(1/2) S_b S_a^(1/2))^(1/2), which is symmetric and so has real roots.
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    return max(0.0, float(shift + first.trace() + second.trace() - 2 * cross))


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3; around 0 (possibly below) for two draws from one source."""
    _check(a, b)
    x, y = a.double(), b.double()
    n, m = len(x), len(y)
    within_x = _kernel(x, x).fill_diagonal_(0).sum() / (n * (n - 1))
    within_y = _kernel(y, y).fill_diagonal_(0).sum() / (m * (m - 1))
    return float(within_x + within_y - 2 * _kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def precision_recall(real: Tensor, made: Tensor, k: int = 3) -> tuple[float, float]:
    """(precision, recall): the share of generated rows within reach of a real one, and of real rows within reach of a
    generated one.

    A row's reach is the distance to its k-th nearest other row of its own set. NaN if a set has no more than k rows.

    Args:
        real, made: features [n, d] and [m, d].
    """
    if real.dim() != 2 or made.dim() != 2 or real.shape[1] != made.shape[1]:
        raise DataError(f"features must be [n, d] of one d; got {list(real.shape)} and {list(made.shape)}")
    if min(len(real), len(made)) <= k:
        return math.nan, math.nan
    return _covered(made, real, k), _covered(real, made, k)


def _covered(rows: Tensor, by: Tensor, k: int) -> float:
    rows, by = rows.double(), by.double()
    own = torch.cdist(by, by, compute_mode="donot_use_mm_for_euclid_dist")
    reach = own.fill_diagonal_(0.0).kthvalue(k + 1, dim=1).values  # the row itself is the nearest
    between = torch.cdist(rows, by, compute_mode="donot_use_mm_for_euclid_dist")
    return float((between <= reach).any(dim=1).double().mean())


def fidelity(
    real: Tensor, real_y: Tensor, made: Tensor, made_y: Tensor, n_classes: int, least: int = 200, k: int = 3
) -> list[Score]:
    """Per class: ``rows_real``, ``rows_made`` and frechet, kernel, precision, recall; NaN is undefined.

    frechet and kernel need ``least`` rows on both sides; precision and recall are computed only below that.

    Args:
        real, made: features [n, d] and [m, d]; ``real`` must not be the generator's training data, or copies
            score best.
        real_y, made_y: int64 class ids.
    """
    scores: list[Score] = []
    for c in range(n_classes):
        a, b = real[real_y == c], made[made_y == c]
        score = dict.fromkeys(("frechet", "kernel", "precision", "recall"), math.nan)
        if min(len(a), len(b)) >= max(least, 2):
            score["frechet"], score["kernel"] = frechet_distance(a, b), kernel_distance(a, b)
        else:
            score["precision"], score["recall"] = precision_recall(a, b, k)
        scores.append({"rows_real": float(len(a)), "rows_made": float(len(b)), **score})
    return scores


def copies(real: Tensor, made: Tensor) -> int:
    """How many generated rows equal a real one exactly."""
    return int((nearest(made, real) == 0).sum())


def _check(a: Tensor, b: Tensor) -> None:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise DataError(f"distances need features [n, d] with n >= 2; got {list(a.shape)} and {list(b.shape)}")
