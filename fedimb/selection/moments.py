"""Per-class count, mean and variance of scores: what a client may reveal about its rows, and how a server pools it.

SCOPE's profile (arXiv 2603.12976): a client sends 1 + 2 M numbers per class for M scores, the server pools them by the
law of total variance, which is exact because variances are population variances (divisor n). Additions: small cells are
left out (with one row the mean *is* that row's score), and Gaussian noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedimb.errors import ConfigError, DataError
from fedimb.selection.checks import labels_fit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Statistics of M scores for each of C classes. Zeros, never NaN, for a class without rows or scores.

    Attributes:
        counts: [C] float64 rows, including those without scores.
        mean: [C, M] float64.
        variance: [C, M] float64, population variance (ddof 0).
        suppressed: [k] int64 classes that `suppress` left out. Stays at the client, because it reveals who holds a
            class.
    """

    counts: Floats
    mean: Floats
    variance: Floats
    suppressed: NDArray[np.int64]


def class_moments(scores: Tensor, labels: Tensor, n_classes: int) -> Moments:
    """Moments of one client's scores.

    Args:
        scores: [n, M] float. A score may be NaN for all rows of a class (a class without a vector); its mean and
            variance are then 0.
        labels: [n] int64 in 0..n_classes-1.

    Raises:
        DataError: shapes do not match, a label is out of range, or a score is infinite, or NaN for only some rows of a
            class.
    """
    if scores.ndim != 2:
        raise DataError(f"scores must have shape [n, M]; got {tuple(scores.shape)}")
    labels_fit(labels, len(scores), n_classes, "class moments")
    values, classes = scores.double().numpy(), labels.numpy()
    counts = np.bincount(classes, minlength=n_classes).astype(np.float64)
    undefined = np.isnan(values)
    missing = _sums(undefined, classes, n_classes)
    if np.isinf(values).any() or not ((missing == 0) | (missing == counts[:, None])).all():
        raise DataError("scores are infinite, or NaN for some rows of a class and not for others: check those rows")
    values = np.where(undefined, 0.0, values)
    rows = np.maximum(counts, 1)[:, None]
    mean = _sums(values, classes, n_classes) / rows
    variance = _sums((values - mean[classes]) ** 2, classes, n_classes) / rows
    return Moments(counts, mean, variance, np.zeros(0, np.int64))


def _sums(values: NDArray[np.generic], classes: NDArray[np.int64], n_classes: int) -> Floats:
    columns = [np.bincount(classes, weights=column, minlength=n_classes) for column in values.T]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.zeros((n_classes, 0))


def suppress(moments: Moments, min_count: int) -> Moments:
    """Moments without classes of fewer than ``min_count`` rows: their count and moments are 0, as if absent.

    The classes that had rows are listed in ``suppressed``.

    Raises:
        ConfigError: ``min_count`` below 1.
    """
    if min_count < 1:
        raise ConfigError(f"min_count={min_count}: give at least 1 (1 leaves nothing out)")
    small = moments.counts < min_count
    return Moments(
        np.where(small, 0.0, moments.counts),
        np.where(small[:, None], 0.0, moments.mean),
        np.where(small[:, None], 0.0, moments.variance),
        np.union1d(moments.suppressed, np.flatnonzero(small & (moments.counts > 0))).astype(np.int64),
    )


def add_noise(
    moments: Moments, sigma: float, normals: Callable[[Sequence[tuple[int, ...]]], Sequence[Floats]]
) -> Moments:
    """Moments derived from sums with Gaussian noise.

    Noise is added, for every class, held or not, to the count, the sum of each score and the sum of its squares, each
    with its own draw of standard deviation sigma. Counts, means and variances are then computed from those sums and
    clipped to valid values (counts >= 0, means in [-1, 1], variances in [0, 1]); a class whose noisy count is below 1
    becomes 0. With scores in [-1, 1] adding or removing one row changes one class's 1 + 2 M sums by at most sqrt(1 + 2
    M) in L2 norm: the sensitivity for `fedimb.privacy.gaussian.sigma_of`. Apply it before `suppress`: a threshold on
    true counts would reveal them.

    Args:
        sigma: standard deviation, in rows; 0 returns the moments unchanged.
        normals: function from shapes to standard normal arrays of them, as `fedimb.privacy.secrets.Secrets.normals`.

    Raises:
        ConfigError: sigma is negative or not finite.
        DataError: a mean outside [-1, 1]: the sensitivity bound would not hold.
    """
    if not (np.isfinite(sigma) and sigma >= 0):
        raise ConfigError(f"sigma={sigma}: give a finite standard deviation of at least 0")
    if sigma == 0:
        return moments
    if np.abs(moments.mean).max(initial=0) > 1 + 1e-9:
        raise DataError("noise is scaled for scores in [-1, 1], but a class mean is outside: scale the scores first")

    rows = moments.counts[:, None]
    exact = [moments.counts, rows * moments.mean, rows * (moments.variance + moments.mean**2)]
    drawn = normals([values.shape for values in exact])
    counts, sums, squares = (values + sigma * noise for values, noise in zip(exact, drawn, strict=True))
    usable = counts >= 1
    divisor = np.where(usable, counts, 1.0)[:, None]
    mean = np.where(usable[:, None], np.clip(sums / divisor, -1, 1), 0.0)
    variance = np.where(usable[:, None], np.clip(squares / divisor - mean**2, 0, 1), 0.0)
    return Moments(np.where(usable, counts, 0.0), mean, variance, moments.suppressed)


def pool(parts: Sequence[Moments]) -> Moments:
    """Moments of all clients' rows together, by the law of total variance, in float64.

    Equal to the moments of the concatenated scores up to rounding. ``suppressed`` is empty: the server does not know
    it.

    Raises:
        DataError: no parts, differing shapes, or invalid moments (not finite, negative counts or variances).
    """
    if len({(part.counts.shape, part.mean.shape, part.variance.shape) for part in parts}) != 1:
        raise DataError("cannot pool moments: need at least one client, all with the same class list and scores")
    counts = np.stack([part.counts for part in parts]).astype(np.float64)
    mean = np.stack([part.mean for part in parts]).astype(np.float64)
    variance = np.stack([part.variance for part in parts]).astype(np.float64)
    for name, array, low in (("counts", counts, 0), ("mean", mean, -np.inf), ("variance", variance, 0)):
        bad = ~(np.isfinite(array) & (array >= low)).reshape(len(parts), -1).all(1)
        if bad.any():
            raise DataError(f"cannot pool moments: {name} of part {int(bad.argmax())} is not finite or negative")
    total = counts.sum(0)
    share = counts / np.where(total > 0, total, 1.0)
    pooled = np.einsum("kc,kcm->cm", share, mean)
    spread = np.einsum("kc,kcm->cm", share, variance + (mean - pooled) ** 2)
    return Moments(total, pooled, spread, np.zeros(0, np.int64))
