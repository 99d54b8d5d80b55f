"""How many rows of each class (or bin) to keep: from desired proportions to available whole numbers."""

import numpy as np
import torch
from torch import Tensor

from fedimb.errors import DataError


def apportion(have: Tensor, wanted: Tensor, keep: int) -> Tensor:
    """Whole numbers that sum to ``keep``: min(have_c, t * wanted_c) for the one level t that fits, rounded.

    Every class that has rows keeps one while ``keep`` allows, in order of ``wanted``. Rounded by largest remainder,
    ties to the lower index.

    Args:
        have: [C] int64, available rows.
        wanted: [C] float64 >= 0, in any scale: ``have`` itself keeps class shares, ones fill evenly. If 0, rows above
            the first are taken only when everything else is taken, in proportion to ``have``.
        keep: 0..have.sum().

    Returns:
        [C] int64, each at most ``have``.

    Raises:
        DataError: ``keep`` out of range, or a wanted value that is negative or not finite.
    """
    most, wish = have.numpy().astype(np.float64), wanted.double().numpy()
    if not 0 <= keep <= most.sum():
        raise DataError(f"cannot keep {keep} of {int(most.sum())} rows")
    if not (np.isfinite(wish) & (wish >= 0)).all():
        raise DataError(f"wanted rows per class must be finite and not negative; got {wish.tolist()}")
    held = np.flatnonzero(most > 0)
    least = np.zeros_like(most)
    least[held[np.argsort(-wish[held], kind="stable")][:keep]] = 1
    if np.where(wish > 0, most, least).sum() < keep:
        least, wish = np.where(wish > 0, most, least), np.where(wish > 0, 0.0, most)
    open_ = (wish > 0) & (most > 0)
    low, high = 0.0, float((most[open_] / wish[open_]).max(initial=0.0))
    for _ in range(200):  # the number kept grows with the level: bisection to float64 precision
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * wish, least, most).sum() < keep else (low, middle)
    exact = np.clip(high * wish, least, most)
    counts = np.floor(exact + 1e-9)
    rest = np.where(counts < most, exact - counts, -1.0)
    counts[np.argsort(-rest.round(9), kind="stable")[: keep - int(counts.sum())]] += 1
    return torch.from_numpy(counts.astype(np.int64))


def capped(have: Tensor, global_counts: Tensor, keep: int) -> Tensor:
    """Undersampling of the head: classes whose global size N_c exceeds a cap t keep a fraction t / N_c.

    Classes below the cap keep all rows. The cap is chosen so that this client keeps ``keep`` rows.

    Args:
        have: [C] int64 rows at the client.
        global_counts: [C] float64 rows in the federation; values below ``have`` (a class that is not in the profile)
            count as ``have``.
        keep: 0..have.sum().

    Returns:
        [C] int64 summing to ``keep``; see `apportion`.

    Raises:
        DataError: see `apportion`.
    """
    rows = have.double()
    return apportion(have, rows / torch.maximum(global_counts.double(), rows).clamp(min=1), keep)
