"""What a site reports before anything is generated: how many rows it has of each class from each device.

Stage B of FedSSG (arXiv 2604.26324) as reconstructed; the paper does not specify its message. The noise is a rounded
Laplace draw, so a noisy count is an integer and its decimals reveal nothing.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError, DataError

Counts = NDArray[np.int64]


def coverage(y: NDArray[np.int64], d: NDArray[np.int64] | None, n_classes: int, n_devices: int = 1) -> Counts:
    """Rows per class and device: [C, D] int64.

    Args:
        y: [n] class ids.
        d: [n] device ids; None: all from device 0.

    Raises:
        DataError: columns of different length, or an id out of range.
    """
    y = np.asarray(y, dtype=np.int64)
    d = np.zeros_like(y) if d is None else np.asarray(d, dtype=np.int64)
    if y.ndim != 1 or y.shape != d.shape:
        raise DataError(f"coverage needs a class and a device per row; got {list(y.shape)} and {list(d.shape)}")
    for what, ids, count in (("class", y, n_classes), ("device", d, n_devices)):
        wrong = np.flatnonzero((ids < 0) | (ids >= count))
        if len(wrong):
            raise DataError(f"row {wrong[0]}: {what} {ids[wrong[0]]} is not one of 0 to {count - 1}; fix the column")
    flat = np.bincount(y * n_devices + d, minlength=n_classes * n_devices)
    return flat.reshape(n_classes, n_devices).astype(np.int64)


def noised(counts: Counts, epsilon: float, laplace: Callable[[int], np.ndarray], rows_per_unit: int = 1) -> Counts:
    """Counts with Laplace noise of scale rows_per_unit / epsilon on every cell, rounded, at least 0: epsilon-DP.

    Adding or removing a row changes one cell by one, so the L1 sensitivity is 1 per row. Empty cells get noise too:
    leaving them at 0 would reveal them. Clipping at 0 biases cells upwards, so sums are too large.

    Args:
        counts: [C, D] >= 0.
        epsilon: > 0; infinity returns the counts as they are.
        laplace: function from a number to so many Laplace numbers of scale 1, as
            `fedimb.privacy.secrets.Secrets.laplace`.
        rows_per_unit: maximum number of rows of one protected unit (a patient), >= 1.

    Raises:
        ConfigError: epsilon not above 0, or rows_per_unit below 1.
    """
    if not epsilon > 0:
        raise ConfigError(f"epsilon={epsilon}: give a number above 0 (smaller is more private)")
    if rows_per_unit < 1:
        raise ConfigError(f"rows_per_unit={rows_per_unit}: give at least 1")
    if math.isinf(epsilon):
        return counts.copy()
    noise = np.rint(rows_per_unit / epsilon * laplace(counts.size)).reshape(counts.shape)
    return np.maximum(counts + noise, 0).astype(np.int64)


def report_bytes(n_classes: int, n_devices: int) -> int:
    """Size of one site's report: 8 bytes per cell."""
    return 8 * n_classes * n_devices
