"""Choosing the shrinkage without test rows: every row is scored by the head without it, and only sums leave a client.

Leaving a row out changes the covariance by rank one, so that its inverse follows from the whole one (Sherman and
Morrison). The trace it is shrunk towards, and the effective width of the correction, are those of all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedimb.discriminant.estimates import Within
from fedimb.discriminant.statistics import Floats, Integers

GRID = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99)
"""Shrinkages to choose from."""
TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.5, 7.5, 10.0)
"""Divisors of the scores to choose from, where a head starts training."""
BITS = 20
_LONGEST = 2.0**20
_BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Fitted:
    """What the server sends for it, of classes that have rows.

    Attributes:
        counts: [C] float64.
        means: [C, d].
        within: the pooled covariance, of at least 2 degrees of freedom.
        log_prior: [C].
        correct: whether the head corrects for short samples.
    """

    counts: Floats
    means: Floats
    within: Within
    log_prior: Floats
    correct: bool = True


def scores_without(fitted: Fitted, x: Floats, c: int, shrinkage: float) -> Floats:
    """Scores [n, C] of rows [n, d] of class c, each by the head of all other rows, up to a constant for each row.

    The class must have more than one row.
    """
    n, freedom = fitted.counts[c], fitted.within.freedom
    width = len(fitted.within.values)
    spectrum = fitted.within.values
    values = (1 - shrinkage) * freedom / (freedom - 1) * spectrum + shrinkage * spectrum.sum() / width
    values = np.maximum(values, 1e-9 * max(float(spectrum.mean()), 1e-300))
    turned = fitted.means @ fitted.within.basis
    off = (x - fitted.means[c]) @ fitted.within.basis  # from the row's own mean: no digits are lost to a long one
    apart = turned[c] - turned
    along = (off / values) @ apart.T
    own = (np.square(off) / values).sum(axis=1)
    factor = (1 - shrinkage) / (freedom - 1) * n / (n - 1)
    bent = factor / (1 - factor * own)
    distance = own[:, None] + 2 * along + (np.square(apart) / values).sum(axis=1)
    distance = distance + bent[:, None] * np.square(own[:, None] + along)
    distance[:, c] = (n / (n - 1)) ** 2 * (own + bent * np.square(own))
    left = fitted.counts - (np.arange(len(fitted.counts)) == c)
    scores = fitted.log_prior - distance / 2
    if fitted.correct:
        scores = scores + fitted.within.effective_width(shrinkage) / (2 * left)
    return scores


def held_out(
    fitted: Fitted, x: Floats, y: Integers, shrinkages: Sequence[float], temperatures: Sequence[float]
) -> dict[str, Integers]:
    """One client's sums over its rows; rows that are the only ones of their class do not count.

    Args:
        x: [n, d].
        y: [n], positions among the classes of ``fitted``.
        shrinkages: A values.
        temperatures: T divisors of the scores.

    Returns:
        ``rows`` [C] and ``hits`` [C, A] counted, ``losses`` [C, A, T] of -log softmax of the own class, in units of
        2**-20; all int64.
    """
    classes = len(fitted.counts)
    rows = np.zeros(classes, np.int64)
    hits = np.zeros((classes, len(shrinkages)), np.int64)
    losses = np.zeros((classes, len(shrinkages), len(temperatures)), np.int64)
    for c in np.flatnonzero(fitted.counts > 1).tolist():
        own = x[y == c]
        rows[c] = len(own)
        for at in range(0, len(own), _BLOCK):
            for a, shrinkage in enumerate(shrinkages):
                scores = scores_without(fitted, own[at : at + _BLOCK], c, shrinkage)
                hits[c, a] += int((scores.argmax(axis=1) == c).sum())
                for t, temperature in enumerate(temperatures):
                    losses[c, a, t] += _loss(scores / temperature, c)
    return {"rows": rows, "hits": hits, "losses": losses}


def _loss(scores: Floats, c: int) -> int:
    best = scores.max(axis=1, keepdims=True)
    loss = np.log(np.exp(scores - best).sum(axis=1)) + best[:, 0] - scores[:, c]
    return int(np.rint(np.minimum(loss, _LONGEST) * 2.0**BITS).astype(np.int64).sum())


@dataclass(frozen=True)
class Choice:
    """What the sums say.

    Attributes:
        shrinkage: of the least mean over classes of the log loss; of equal ones the larger.
        temperature: likewise, for this shrinkage.
        log_loss: its mean over classes, at temperature 1.
        macro_recall: mean over classes of the share of rows that the head without them gets right.
    """

    shrinkage: float
    temperature: float
    log_loss: float
    macro_recall: float


def chosen(
    rows: Integers, hits: Integers, losses: Integers, shrinkages: Sequence[float], temperatures: Sequence[float]
) -> Choice | None:
    """The choice from the sum of all clients' `held_out`; None if no class has two rows."""
    counted = rows > 0
    if not counted.any():
        return None
    mean = (losses[counted] * 2.0**-BITS / rows[counted, None, None]).mean(axis=0)
    a = len(shrinkages) - 1 - int(mean[::-1, 0].argmin())
    t = len(temperatures) - 1 - int(mean[a, ::-1].argmin())
    recall = float((hits[counted, a] / rows[counted]).mean())
    return Choice(float(shrinkages[a]), float(temperatures[t]), float(mean[a, 0]), recall)
