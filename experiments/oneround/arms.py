"""The heads that the study compares: one set of sums, one set of leave-one-out scores, many bias terms.

Sums, covariance and leave-one-out scores are fedimb's own (`fedimb.discriminant`); only the term that is added to a
class's score differs between arms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedimb.discriminant import heads
from fedimb.discriminant.estimates import Within, means_of, within_of
from fedimb.discriminant.leave_one_out import BITS, GRID, TEMPERATURES, Fitted, chosen, scores_without
from fedimb.discriminant.statistics import (
    Floats,
    Integers,
    Statistics,
    Units,
    class_sums,
    opened,
    scale_of,
    squared_length,
)

Term = Callable[[Floats, float, float], Floats]
"""(rows of each class [C], d_eff, tr(A S)) -> what is added to each class's score [C]."""


@dataclass(frozen=True, eq=False)
class Arm:
    """One head.

    Attributes:
        name: as in the tables.
        term: added to the scores.
        tau: of a logit adjustment; None: the arm is not one.
    """

    name: str
    term: Term
    tau: float | None = None


def of_amount(c: float) -> Term:
    """c times the correction for short samples."""
    return lambda counts, width, _: c * width / (2 * counts)


def of_tau(tau: float) -> Term:
    """Logit adjustment: - tau log of the class's share of the rows."""
    return lambda counts, _, __: -tau * np.log(counts / counts.sum())


def arms(amounts: Sequence[float], taus: Sequence[float]) -> list[Arm]:
    """All arms: amounts of the correction, the term with the mean of the counts, that without the denominator, taus."""
    return [
        *(Arm(f"c={c:g}", of_amount(c)) for c in amounts),
        Arm("equal", lambda counts, width, _: np.full(len(counts), width / (2 * counts.mean()))),
        Arm("plain_trace", lambda counts, _, trace: trace / (2 * counts)),
        *(Arm(f"tau={tau:g}", of_tau(tau), tau) for tau in taus),
    ]


def sums_of(x: Floats, y: Integers, classes: int, kept: Sequence[int] | None = None) -> Statistics:
    """The statistics of rows [n, d] as clients' exact sums give them; ``kept``: the other classes' rows are in none."""
    kept = range(classes) if kept is None else kept
    units = Units.of(squared_length(scale_of(x), len(x)), len(x))
    return opened(class_sums(x, y, list(kept), classes, units, ("squares", "second")), units)


@dataclass(frozen=True, eq=False)
class Chosen:
    """What leave-one-out says of one arm.

    Attributes:
        shrinkage, log_loss: the best shrinkage, and its mean over classes of the log loss.
        temperature: divisor of the scores with the least log loss, at this shrinkage.
    """

    shrinkage: float
    log_loss: float
    temperature: float


class Study:
    """Sums of some rows and everything that arms need of them.

    Args:
        statistics: of C classes, some of which may have no rows.
        x, y: the rows themselves [n, d], [n], for leaving each out.
    """

    def __init__(self, statistics: Statistics, x: Floats, y: Integers) -> None:
        self.n_classes = len(statistics.counts)
        self.statistics, self.ids = statistics.in_order()
        self.within: Within = within_of(self.statistics)
        place = np.full(self.n_classes, -1, np.int64)
        place[self.ids] = np.arange(len(self.ids))
        inside = place[y] >= 0
        self._x, self._y = x[inside], place[y[inside]]
        self._left_out: dict[int, list[Floats]] | None = None

    def width(self, shrinkage: float) -> tuple[float, float]:
        """d_eff and tr(A S)."""
        trace = float((self.within.values / self.within.shrunk(shrinkage)).sum())
        return self.within.effective_width(shrinkage), trace

    def choose(self, arm: Arm) -> Chosen:
        """Shrinkage, then temperature, of an arm by leave-one-out (`fedimb.discriminant.leave_one_out.chosen`)."""
        first = chosen(*self._sums(arm, range(len(GRID)), (1.0,)), GRID, (1.0,))
        if first is None:
            return Chosen(0.5, float("nan"), 1.0)
        a = GRID.index(first.shrinkage)
        second = chosen(*self._sums(arm, [a], TEMPERATURES), GRID[a : a + 1], TEMPERATURES)
        assert second is not None
        return Chosen(first.shrinkage, first.log_loss, second.temperature)

    def scores(self, arm: Arm, shrinkage: float, x: Floats) -> Floats:
        """Scores [n, C] of rows [n, d]; -infinity for a class without rows."""
        even = np.zeros(len(self.ids))
        head = heads.lda(self.statistics, shrinkage, even, False, self.within)
        found = np.full((len(x), self.n_classes), -np.inf)
        found[:, self.ids] = head(x) + arm.term(self.statistics.counts, *self.width(shrinkage))
        return found

    def _bases(self) -> dict[int, list[Floats]]:
        """Class -> for each shrinkage of the grid the scores [n_c, C] of its rows without themselves, uncorrected."""
        if self._left_out is None:
            counts = self.statistics.counts
            fitted = Fitted(counts, means_of(self.statistics), self.within, np.zeros(len(counts)), correct=False)
            several = np.flatnonzero(counts > 1).tolist() if self.within.freedom >= 2 else []
            self._left_out = {c: [scores_without(fitted, self._x[self._y == c], c, a) for a in GRID] for c in several}
        return self._left_out

    def _sums(
        self, arm: Arm, shrinkages: Sequence[int], temperatures: Sequence[float]
    ) -> tuple[Integers, Integers, Integers]:
        counts = self.statistics.counts
        rows = np.zeros(len(counts), np.int64)
        hits = np.zeros((len(counts), len(shrinkages)), np.int64)
        losses = np.zeros((len(counts), len(shrinkages), len(temperatures)), np.int64)
        for c, bases in self._bases().items():
            left = counts - (np.arange(len(counts)) == c)
            rows[c] = len(bases[0])
            for k, a in enumerate(shrinkages):
                scores = bases[a] + arm.term(left, *self.width(GRID[a]))
                hits[c, k] = int((scores.argmax(axis=1) == c).sum())
                for t, temperature in enumerate(temperatures):
                    loss = np.minimum(log_losses(scores / temperature, np.full(len(scores), c)), 2.0**20)
                    losses[c, k, t] = int(np.rint(loss * 2.0**BITS).astype(np.int64).sum())
        return rows, hits, losses


def log_losses(scores: Floats, y: Integers) -> Floats:
    """-log softmax of the own class, [n]; scores [n, C] may be -infinity, not of the own class only."""
    best = scores.max(axis=1, keepdims=True)
    total: Floats = np.log(np.exp(scores - best).sum(axis=1)) + best[:, 0] - scores[np.arange(len(y)), y]
    return total


@dataclass(frozen=True, eq=False)
class TwoClasses:
    """A head of two classes: class 0 where weight'x + bias > 0.

    Attributes:
        weight: [d].
        bias: its constant.
        risk: the estimate of its mean error.
    """

    weight: Floats
    bias: float
    risk: float


def abcrlda(statistics: Statistics, gamma: float, within: Within | None = None) -> TwoClasses:
    """Asymptotically bias-corrected regularised discriminant analysis with equal costs.

    Zollanvari, Abdirash, Dadlani and Abibullaev, IEEE Signal Processing Letters 2019; formula and estimate of the risk
    as the authors' R package abcrlda has them. H = (I + gamma S)^-1.

    Args:
        statistics: of two classes.
        gamma: regularisation, above 0.
        within: the covariance, where it is known.
    """
    from scipy.stats import norm

    within = within_of(statistics) if within is None else within
    zero, one = means_of(statistics)
    dof, width = within.freedom, len(within.values)
    shrunk = 1 / (1 + gamma * within.values)
    turned = (zero - one) @ within.basis
    weight = (turned * shrunk) @ within.basis.T
    used = (width - shrunk.sum()) / dof
    delta = used / (gamma * (1 - used))
    half = float(turned @ (shrunk * turned)) / 2
    first, second = half - dof / statistics.counts[0] * delta, -half + dof / statistics.counts[1] * delta
    spread = float(turned @ (shrunk**2 * within.values * turned)) * (1 + gamma * delta) ** 2
    omega = -(first + second) / 2
    root = np.sqrt(max(spread, 1e-300))
    risk = float(norm.cdf(-(first + omega) / root) + norm.cdf((second + omega) / root)) / 2
    return TwoClasses(weight, float(-weight @ (zero + one) / 2 + omega), risk)


def gamma_of(within: Within, shrinkage: float) -> float:
    """The gamma whose (I + gamma S)^-1 is a multiple of the inverse of (1 - a) S + a (tr S / d) I."""
    return (1 - shrinkage) / (shrinkage * float(within.values.mean()))
