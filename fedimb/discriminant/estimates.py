"""Means, the covariance within classes, and how much of it to believe: what heads are computed from."""

from dataclasses import dataclass

import numpy as np

from fedimb.discriminant.statistics import Floats, Statistics
from fedimb.errors import ConfigError

_FLOOR = 1e-9


def means_of(statistics: Statistics) -> Floats:
    """[C, d], of classes that all have rows."""
    return statistics.sums / statistics.counts[:, None]


def freedom_of(statistics: Statistics) -> float:
    """Degrees of freedom within classes: rows less classes; 0 if every class has one row."""
    return float(max(statistics.counts.sum() - len(statistics.counts), 0.0))


def trace_within(statistics: Statistics) -> float:
    """Trace of the pooled within-class covariance, from the sum of squared lengths alone; 0 without freedom."""
    assert statistics.squares is not None
    freedom = freedom_of(statistics)
    means = means_of(statistics)
    inside = statistics.squares - float((statistics.counts * np.square(means).sum(axis=1)).sum())
    return max(inside, 0.0) / freedom if freedom > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Within:
    """The pooled within-class covariance, by its eigenvectors.

    Attributes:
        values: eigenvalues [d], none below 0.
        basis: eigenvectors [d, d], one per column.
        freedom: degrees of freedom; 0: there is no covariance, and ``values`` are 0.
    """

    values: Floats
    basis: Floats
    freedom: float

    @property
    def matrix(self) -> Floats:
        """[d, d]."""
        return (self.basis * self.values) @ self.basis.T

    def shrunk(self, shrinkage: float) -> Floats:
        """Eigenvalues [d] of (1 - a) S + a (tr S / d) I; of I where S is 0.

        Raises:
            ConfigError: no shrinkage, and a covariance of fewer rows than features, which has no inverse.
        """
        if not self.values.any():
            return np.ones_like(self.values)
        if shrinkage == 0 and self.freedom < len(self.values):
            raise ConfigError(
                f"shrinkage=0 needs an invertible covariance, but {len(self.values)} features have only "
                f"{self.freedom:g} degrees of freedom; set shrinkage above 0, or to loo"
            )
        mean = float(self.values.mean())
        return np.maximum((1 - shrinkage) * self.values + shrinkage * mean, _FLOOR * mean)

    def effective_width(self, shrinkage: float) -> float:
        """E[e' A e] for an error e of covariance S that A was not made from, with A the inverse of the shrunk S.

        tr(A S) alone is too small, because A is made from the same rows: t / (1 - (1 - a) t / dof), the leave-one-out
        form of the generalised cross-validation denominator.
        """
        trace = float((self.values / self.shrunk(shrinkage)).sum())
        return trace / (1 - (1 - shrinkage) * trace / self.freedom) if self.freedom > 0 else trace


def within_of(statistics: Statistics, divisor: float | None = None) -> Within:
    """The covariance within classes from ``second``.

    Args:
        divisor: of the scatter; None: the degrees of freedom, rows less classes.
    """
    assert statistics.second is not None
    means, freedom = means_of(statistics), freedom_of(statistics)
    scatter = statistics.second - (statistics.counts[:, None] * means).T @ means
    if freedom <= 0:
        width = len(scatter)
        return Within(np.zeros(width), np.eye(width), 0.0)
    values, basis = np.linalg.eigh((scatter + scatter.T) / 2)
    return Within(np.maximum(values, 0.0) / (divisor or freedom), basis, freedom)


def oas(within: Within) -> float:
    """Shrinkage by oracle approximating shrinkage, with the degrees of freedom as the number of samples.

    Chen, Wiesel, Eldar, Hero, "Shrinkage Algorithms for MMSE Covariance Estimation", IEEE Transactions on Signal
    Processing 2010, eq. 23. It minimises the error of the covariance, not of the classifier, and so shrinks too little
    for a long tail.
    """
    width, trace, squared = len(within.values), float(within.values.sum()), float(np.square(within.values).sum())
    if within.freedom <= 0 or squared * width <= trace**2:
        return 1.0
    above = (1 - 2 / width) * squared + trace**2
    below = (within.freedom + 1 - 2 / width) * (squared - trace**2 / width)
    return float(min(1.0, above / below))
