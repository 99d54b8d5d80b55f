"""From shares to whole numbers, and from units to clients: the arithmetic that all partitioners use."""

import numpy as np
from numpy.typing import NDArray


def largest_remainder(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Integer quotas that sum to ``total`` and differ from ``shares * total`` by less than one each.

    Largest-remainder (Hamilton) apportionment, ties to the lower index. Rounding down would give every remainder to the
    last client and so change results.

    Args:
        shares: [K] >= 0, summing to 1.
        total: >= 0.

    Returns:
        [K] int64.

    Raises:
        ValueError: shares are not a share vector (NaN, negative, or another sum).
    """
    shares = np.asarray(shares, dtype=np.float64)
    if not (len(shares) and (shares >= 0).all() and abs(shares.sum() - 1) < 1e-6) or total < 0:
        raise ValueError(f"no quotas from shares {shares} of {total}")
    exact = shares / shares.sum() * total
    quotas = np.floor(exact).astype(np.int64)
    left = total - int(quotas.sum())
    quotas[np.argsort(-(exact - quotas), kind="stable")[:left]] += 1
    return quotas


def dirichlet_shares(alpha: float, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """One symmetric Dirichlet draw, [size] float64, valid for any alpha >= 1e-6."""
    gamma = np.exp(log_dirichlet_shares(alpha, size, rng))
    return gamma / gamma.sum()


def log_dirichlet_shares(alpha: float, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The logs of one symmetric Dirichlet draw, up to an additive constant.

    [size] float64, the largest 0, all finite. Gamma(alpha) = Gamma(alpha + 1) * U^(1 / alpha), where -log U is an
    exponential draw (Marsaglia and Tsang 2000). At alpha 1e-3 plain gamma draws all underflow to 0 and their ratio is
    NaN.
    """
    log_gamma = np.log(rng.standard_gamma(alpha + 1.0, size)) - rng.standard_exponential(size) / alpha
    return log_gamma - log_gamma.max()


def deal_units(weights: NDArray[np.int64], quotas: NDArray[np.int64]) -> NDArray[np.int64]:
    """Assign units, in order, to clients: [U] int64 client per unit.

    A unit goes to the client whose interval of the cumulative quotas contains the unit's midpoint. With weights of 1
    every client gets exactly its quota; a heavier unit (a patient with several rows) is never split.

    Args:
        weights: [U] >= 1, rows per unit.
        quotas: [K] >= 0, summing to the sum of the weights.
    """
    middle = np.cumsum(weights) - weights / 2
    return np.searchsorted(np.cumsum(quotas), middle, side="left").astype(np.int64)
