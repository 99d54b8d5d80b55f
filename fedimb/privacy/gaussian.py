"""How much Gaussian noise (epsilon, delta)-differential privacy needs: the analytic calibration.

Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy: Analytical Calibration and Optimal
Denoising", ICML 2018, theorem 8. It is exact for every epsilon > 0; the classic sigma = sqrt(2 ln(1.25/delta))
sensitivity / epsilon holds only for epsilon < 1 and adds more than necessary.
"""

import math


def delta_of(sigma: float, epsilon: float, sensitivity: float = 1.0) -> float:
    """The smallest delta for which noise of standard deviation sigma is (epsilon, delta)-DP (theorem 8)."""
    a, b = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
    return _normal_cdf(a - b) - math.exp(epsilon) * _normal_cdf(-a - b)


def sigma_of(epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """The smallest standard deviation that makes a sum of that L2 sensitivity (epsilon, delta)-DP, to 1e-12.

    Args:
        epsilon: in (0, 100].
        delta: in (0, 1).
        sensitivity: maximum change of the sum by one unit of privacy, in L2 norm, > 0.

    Raises:
        ValueError: a value out of these ranges.

    Example:
        >>> round(sigma_of(epsilon=1.0, delta=1e-5), 3)
        3.731
    """
    if not (0 < epsilon <= 100 and 0 < delta < 1 and 0 < sensitivity < math.inf):
        raise ValueError(
            "differential privacy needs epsilon in (0, 100], delta in (0, 1) and a sensitivity > 0; "
            f"got {epsilon}, {delta} and {sensitivity}"
        )
    low, high = 0.0, 1.0
    while delta_of(high, epsilon) > delta:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle, epsilon) > delta else (low, middle)
    return high * sensitivity


def epsilon_of(sigma: float, delta: float, sensitivity: float = 1.0) -> float:
    """The smallest epsilon for which noise of standard deviation sigma > 0 is (epsilon, delta)-DP, to 1e-10 of it.

    Solves theorem 8 for epsilon in logarithms: with little noise exp(epsilon) overflows.

    Raises:
        ValueError: delta not in (0, 1), or sigma or sensitivity not above 0.
    """
    from scipy.special import log_ndtr  # imported here: a node draws noise but reports no epsilon

    if not (0 < delta < 1 and sigma > 0 and sensitivity > 0):
        raise ValueError(
            f"delta must lie in (0, 1), sigma and sensitivity above 0; got {delta}, {sigma}, {sensitivity}"
        )
    half = sensitivity / (2 * sigma)

    def too_small(epsilon: float) -> bool:
        shift = epsilon * sigma / sensitivity
        first, second = float(log_ndtr(half - shift)), epsilon + float(log_ndtr(-half - shift))
        return second < first and first + math.log(-math.expm1(second - first)) > math.log(delta)

    if not too_small(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while too_small(high):
        low, high = high, 2 * high
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high


def _normal_cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2
