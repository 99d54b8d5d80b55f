"""The privacy cost of several rounds of noise: Renyi differential privacy of the sampled Gaussian mechanism.

Mironov, Talwar and Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism", arXiv 1908.10530, section
3.3: with noise sigma for a sensitivity of 1 and every unit in a round with probability q, independently of the others,
epsilon(alpha) = log E[((1 - q) + q exp((2 z - 1) / (2 sigma^2)))^alpha] / (alpha - 1) for z ~ N(0, sigma^2). Rounds add
up, order by order. Conversion to (epsilon, delta): Canonne, Kamath and Steinke, NeurIPS 2020, proposition 12.

Without sampling (q = 1) `fedimb.privacy.gaussian.epsilon_of` is exact and smaller; `fedimb.privacy.ledger` explains
which of the two a run reports, and against which adversary.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

ORDERS: tuple[float, ...] = (*(1 + x / 10 for x in range(1, 100)), *map(float, range(11, 64)), 128.0, 256.0, 512.0)
"""The orders alpha; the best one is taken at the end."""

_POINTS_PER_SIGMA, _TAIL = 64, 12.0


@lru_cache(maxsize=1024)
def rdp_of(q: float, noise: float) -> np.ndarray:
    """One round's epsilon at each of `ORDERS`, float64; read-only.

    Args:
        q: probability of taking part, in [0, 1].
        noise: standard deviation of the noise on the sum, divided by the sensitivity, > 0.

    Raises:
        ValueError: a value out of these ranges.
    """
    if not (0 <= q <= 1 and noise > 0):
        raise ValueError(f"the accountant needs q in [0, 1] and noise > 0; got {q} and {noise}")
    if q == 0:
        found = np.zeros(len(ORDERS))
    elif q == 1:
        found = np.array(ORDERS) / (2 * noise**2)
    else:
        found = np.array([_log_moment(q, noise, alpha) / (alpha - 1) for alpha in ORDERS])
    found.flags.writeable = False
    return found


def epsilon_of_rdp(rdp: Sequence[float] | np.ndarray, delta: float) -> float:
    """The smallest epsilon at ``delta`` in (0, 1), from Renyi epsilons at `ORDERS` summed over rounds; at least 0."""
    alpha = np.array(ORDERS)
    every = np.asarray(rdp) + np.log1p(-1 / alpha) - (math.log(delta) + np.log(alpha)) / (alpha - 1)
    return max(0.0, float(every.min()))


def _log_moment(q: float, noise: float, alpha: float) -> float:
    return _log_sum(q, noise, int(alpha)) if alpha.is_integer() else _log_integral(q, noise, alpha)


def _log_sum(q: float, noise: float, alpha: int) -> float:
    """Integer orders: a binomial sum (section 3.3, equation 30)."""
    from scipy.special import gammaln, logsumexp  # here: every run imports this file, and few add noise

    k = np.arange(alpha + 1)
    chosen = gammaln(alpha + 1) - gammaln(k + 1) - gammaln(alpha - k + 1)
    terms = chosen + (alpha - k) * math.log1p(-q) + k * math.log(q) + (k * k - k) / (2 * noise**2)
    return float(logsumexp(terms))


def _log_integral(q: float, noise: float, alpha: float) -> float:
    """Any order, by the trapezoid rule, which is exact to rounding for an analytic integrand that decays to 0."""
    from scipy.special import logsumexp

    step = noise / _POINTS_PER_SIGMA
    z = np.arange(-_TAIL * noise, alpha + _TAIL * noise, step)
    ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * z - 1) / (2 * noise**2))
    density = -(z**2) / (2 * noise**2) - math.log(noise * math.sqrt(2 * math.pi))
    return float(logsumexp(alpha * ratio + density)) + math.log(step)
