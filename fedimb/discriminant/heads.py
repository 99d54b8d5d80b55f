"""Heads from class statistics: each a pure function of `Statistics` whose classes all have rows.

Class means and discriminant analysis are classical. NCM from federated sums is FedNCM (Legate et al., NeurIPS 2023),
ridge with unit rows Fed3R (Fani et al., ICML 2024), covariances from class means FedCOF (arXiv 2412.14326), the total
covariance FedCGS (arXiv 2503.06962), the Fisher heads GH-OFL (arXiv 2602.01186; `fedimb.discriminant.fisher`).

**Correction for short samples.** A mean of n rows is too long: E|m|^2 = |mu|^2 + tr(S) / n. A head whose bias holds
-m'Am / 2 therefore pushes rows away from rare classes by tr(AS) / (2 n), which is taken off here. Known for two
classes: Moran and Murphy, Applied Statistics 1979; Chan and Hall, Biometrika 2009; Aoshima and Yata 2014; the R package
abcrlda (Zollanvari et al. 2019). Where A is made from the same rows, the effective width of
`fedimb.discriminant.estimates.Within.effective_width` stands for tr(AS).
"""

from dataclasses import dataclass

import numpy as np

from fedimb.discriminant.estimates import Within, means_of, trace_within, within_of
from fedimb.discriminant.statistics import Floats, Integers, Statistics

_VARIANCE_FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Scores:
    """A head: score_c(x) = weight_c'x + bias_c - x'K_c x / 2.

    Attributes:
        weight: [C, d] float64.
        bias: [C] float64; -infinity: the class is never chosen.
        precision: K, [C, d, d], or its diagonals [C, d]; None: the head is linear.
    """

    weight: Floats
    bias: Floats
    precision: Floats | None = None

    def __call__(self, x: Floats) -> Floats:
        """Rows [n, d] -> scores [n, C]."""
        linear = x @ self.weight.T + self.bias
        if self.precision is None:
            return linear
        if self.precision.ndim == 2:
            return linear - np.square(x) @ self.precision.T / 2
        return linear - np.einsum("nd,cde,ne->nc", x, self.precision, x) / 2

    def spread(self, classes: Integers, n_classes: int) -> "Scores":
        """The head over all classes, where these scores are of ``classes``; the others are never chosen."""
        weight, bias = np.zeros((n_classes, self.weight.shape[1])), np.full(n_classes, -np.inf)
        weight[classes], bias[classes] = self.weight, self.bias
        if self.precision is None:
            return Scores(weight, bias)
        precision = np.zeros((n_classes, *self.precision.shape[1:]))
        precision[classes] = self.precision
        return Scores(weight, bias, precision)


def ncm(statistics: Statistics, correct: bool = True, metric: str = "euclidean", noise: float = 0.0) -> Scores:
    """Nearest class mean.

    Args:
        correct: for short samples; needs ``squares``.
        metric: ``euclidean`` or ``cosine`` (means of unit length, as FedNCM; features are not scaled).
        noise: standard deviation of noise on each value of ``sums``, whose variance the correction takes off too.
    """
    means, width = means_of(statistics), statistics.sums.shape[1]
    squared = np.square(means).sum(axis=1)
    excess = np.zeros_like(squared)
    if correct:
        excess = trace_within(statistics) / statistics.counts + width * noise**2 / statistics.counts**2
    if metric == "euclidean":
        return Scores(means, -squared / 2 + excess / 2)
    length = np.sqrt(np.maximum(squared - excess, squared / 4))
    return Scores(means / np.where(length > 0, length, 1.0)[:, None], np.zeros_like(squared))


def lda(
    statistics: Statistics,
    shrinkage: float,
    log_prior: Floats,
    correct: bool = True,
    within: Within | None = None,
    noise: float = 0.0,
) -> Scores:
    """Linear discriminant analysis with the shrunk within-class covariance.

    Args:
        shrinkage: a in (1 - a) S + a (tr S / d) I, in [0, 1].
        log_prior: log of the class prior [C]; zeros: uniform.
        correct: for short samples.
        within: as `within_of` gives it, where it is known already.
        noise: as in `ncm`.
    """
    within = within_of(statistics) if within is None else within
    means = means_of(statistics)
    values = within.shrunk(shrinkage)
    turned = means @ within.basis
    weight = (turned / values) @ within.basis.T
    bias = -(np.square(turned) / values).sum(axis=1) / 2 + log_prior
    if correct:
        bias = bias + within.effective_width(shrinkage) / (2 * statistics.counts)
        bias = bias + noise**2 * float((1 / values).sum()) / (2 * statistics.counts**2)
    return Scores(weight, bias)


def qda(
    statistics: Statistics,
    shrinkage: float,
    log_prior: Floats,
    correct: bool = True,
    borrowed: float | None = None,
    within: Within | None = None,
) -> Scores:
    """Quadratic discriminant analysis: a covariance per class, rare classes borrowing from the pooled one.

    Args:
        shrinkage, log_prior, correct, within: as for `lda`.
        borrowed: rows' worth of the pooled covariance that each class adds to its own; None: as many as features.
    """
    assert statistics.scatter is not None
    within = within_of(statistics) if within is None else within
    pooled = within.matrix if within.values.any() else np.eye(statistics.sums.shape[1])
    means, width = means_of(statistics), statistics.sums.shape[1]
    nu = float(width) if borrowed is None else borrowed
    weights, biases, precisions = [], [], []
    for n, mean, products, prior in zip(statistics.counts, means, statistics.scatter, log_prior, strict=True):
        own = n - 1 if n > 1 and products.any() else 0.0
        scatter = products - n * np.outer(mean, mean) if own else 0.0
        before = (scatter + nu * pooled) / (own + nu) if own + nu > 0 else pooled
        shrunk = (1 - shrinkage) * before + shrinkage * np.trace(before) / width * np.eye(width)
        values, basis = np.linalg.eigh((shrunk + shrunk.T) / 2)
        values = np.maximum(values, 1e-9 * max(float(values.mean()), 1e-300))
        precision = (basis / values) @ basis.T
        along = precision @ mean
        bias = -mean @ along / 2 - np.log(values).sum() / 2 + prior
        if correct:
            bias += float((precision * before).sum()) / (2 * n)
        weights.append(along)
        biases.append(bias)
        precisions.append(precision)
    return Scores(np.stack(weights), np.array(biases), np.stack(precisions))


def naive_bayes(statistics: Statistics, log_prior: Floats) -> Scores:
    """Gaussian naive Bayes (GH-OFL's NBdiag), variances at least 1e-6; a class of one row has the pooled variances."""
    assert statistics.by_class is not None
    means, counts = means_of(statistics), statistics.counts[:, None]
    variance = statistics.by_class / counts - np.square(means)
    several = statistics.counts > 1
    if several.any():
        inside = (counts * variance)[several].sum(axis=0)
        variance[~several] = inside / statistics.counts[several].sum()
    else:
        variance[:] = 1.0
    variance = np.maximum(variance, _VARIANCE_FLOOR)
    bias = -(np.square(means) / variance).sum(axis=1) / 2 - np.log(variance).sum(axis=1) / 2 + log_prior
    return Scores(means / variance, bias, 1 / variance)


def ridge(statistics: Statistics, penalty: float, balanced: bool, intercept: bool = True) -> Scores:
    """Ridge regression onto one-hot labels.

    Args:
        penalty: added to the diagonal; not to the intercept's.
        balanced: every class with the same total weight, which is the uniform prior; needs ``weighted``.
        intercept: whether there is one.
    """
    counts, sums, second = statistics.counts, statistics.sums, statistics.second
    if balanced:
        assert statistics.weights is not None
        counts, second = counts * statistics.weights, statistics.weighted
        sums = sums * statistics.weights[:, None]
    assert second is not None
    width = len(second)
    if not intercept:
        return Scores(_solved(second + penalty * np.eye(width), sums.T).T, np.zeros(len(counts)))
    total = sums.sum(axis=0)
    left = np.block([[second + penalty * np.eye(width), total[:, None]], [total[None], counts.sum()]])
    found = _solved(left, np.vstack([sums.T, counts[None]]))
    return Scores(found[:-1].T, found[-1])


def fed3r(statistics: Statistics, penalty: float) -> Scores:
    """Fed3R: ridge without intercept, then rows of length 1."""
    return _unit_rows(ridge(statistics, penalty, balanced=False, intercept=False))


def fedcof(counts: Floats, sums: Floats, gamma: float) -> Scores:
    """FedCOF: class covariances from the clients' class means, without between-class scatter, then rows of length 1.

    Args:
        counts: rows [K, C] of each client.
        sums: [K, C, d].
        gamma: added to the diagonal of every class covariance, in the features' squared scale.
    """
    order = sorted(range(len(counts)), key=lambda k: (counts[k].tolist(), sums[k].ravel().tolist()))
    counts, sums = counts[order], sums[order]
    total, width = counts.sum(axis=0), sums.shape[2]
    means = sums.sum(axis=0) / total[:, None]
    gram = np.zeros((width, width))
    for c in range(len(total)):
        held = counts[:, c] > 0
        off = sums[held, c] / counts[held, c][:, None] - means[c]
        covariance = (off * counts[held, c][:, None]).T @ off / max(int(held.sum()) - 1, 1) + gamma * np.eye(width)
        gram += (total[c] - 1) * covariance
    overall = sums.sum(axis=(0, 1)) / total.sum()
    gram += total.sum() * np.outer(overall, overall)
    return _unit_rows(Scores(_solved(gram, sums.sum(axis=0).T).T, np.zeros(len(total))))


def fedcgs(statistics: Statistics, log_prior: Floats) -> Scores:
    """FedCGS: discriminant analysis with the total covariance, not shrunk. The paper's prior is that of the data."""
    assert statistics.second is not None
    rows, overall = float(statistics.counts.sum()), statistics.sums.sum(axis=0) / statistics.counts.sum()
    total = (statistics.second - rows * np.outer(overall, overall)) / max(rows - 1, 1.0)
    means = means_of(statistics)
    weight = _solved(total, means.T).T
    return Scores(weight, -(means * weight).sum(axis=1) / 2 + log_prior)


def _unit_rows(scores: Scores) -> Scores:
    length = np.linalg.norm(scores.weight, axis=1, keepdims=True)
    return Scores(scores.weight / np.where(length > 0, length, 1.0), scores.bias)


def _solved(matrix: Floats, right: Floats) -> Floats:
    """The solution of a symmetric system; the shortest one where the matrix is singular."""
    found: Floats = np.linalg.lstsq((matrix + matrix.T) / 2, right, rcond=1e-13)[0].astype(np.float64)
    return found
