"""What a number of tuning trials is worth: the expected best of k trials.

A row that tried forty configurations is not comparable to one that tried four. The curve of the expected best over the
number of trials shows at which budget two rows were equal, and whether either still rises.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def expected_best(worths: ArrayLike) -> NDArray[np.float64]:
    """Expected largest of k of n trials drawn without replacement, for k = 1 to n.

    The mean over all subsets of size k, which is unbiased (Tang et al., ACL 2020, section 3.2); the estimator of Dodge
    et al. (EMNLP 2019) draws with replacement and is too low.

    Args:
        worths: what each trial is worth, higher is better, [n]; ``-inf`` for a trial that failed.

    Returns:
        float64 [n]; its last value is the best trial. ``-inf`` where a subset of that size can consist of failures.

    Raises:
        ValueError: no trial, or a NaN.

    Example:
        >>> expected_best([0.1, 0.4, 0.2]).round(3).tolist()
        [0.233, 0.333, 0.4]
    """
    values = np.sort(np.asarray(worths, np.float64))
    n = len(values)
    if values.ndim != 1 or not n or np.isnan(values).any():
        raise ValueError("expected_best needs the worth of at least one trial, and no NaN")
    curve = np.empty(n)
    # share[i]: the probability that the i-th smallest is the largest of k drawn, C(i, k - 1) / C(n, k)
    share = np.full(n, 1 / n)
    for k in range(1, n + 1):
        drawn = share > 0
        curve[k - 1] = float(share[drawn] @ values[drawn])
        if k < n:
            share = share * (np.arange(n) - k + 1) / k * (k + 1) / (n - k)
    return curve
