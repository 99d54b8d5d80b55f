"""FedYoYo's effective number of rows of a class, by the likeness of their features, and class shares made of them.

ICCV 2025. With u_i = h_i - mean of the class's features at the client, R the cosines of the u of a class in one batch,
a batch adds 1 / max(mean R, 1e-6) to the class's number, 1 if the class has a single row in it. The number of a
rare class has no bound: if all its rows are in one batch, centring makes the mean of R about 0, so two rows give 1e6.
Which rows share a batch changes it; here batches are of the rows in order.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

_LEAST = 1e-6
_LARGEST, _FOLD, _KEPT = 1e4, 100.0, 0.9


def effective_numbers(features: Tensor, labels: Tensor, n_classes: int, batch: int) -> Tensor:
    """Effective numbers [C] float64, 0 for a class without rows.

    Args:
        features: [n, d].
        labels: [n] int64.
        n_classes: C.
        batch: rows of a batch.
    """
    rows, total = features.double(), torch.zeros(n_classes, dtype=torch.float64)
    for label in labels.unique().tolist():
        own = labels == label
        mean = rows[own].mean(dim=0)
        for part, held in zip(rows.split(batch), own.split(batch), strict=True):
            count = int(held.sum())
            if count > 1:
                likeness = normalize(part[held] - mean, dim=1)
                total[label] += 1 / max(float((likeness @ likeness.T).mean()), _LEAST)
            else:
                total[label] += count
    return total


def shares_of(numbers: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    """Unnormalised class shares [C] float64 of the clients' effective numbers added up [C].

    1 is added to each. In the first round (``before`` None) numbers above 10,000 become the mean of the others (1 if
    there are none); later .9 of the shares before and .1 of the new number, and a class whose new number differs from
    its share before more than 100-fold keeps that.
    """
    found = 1 + numbers.astype(np.float64)
    if before is None:
        large = found > _LARGEST
        found[large] = found[~large].mean() if not large.all() else 1.0
        return found
    moved = _KEPT * before + (1 - _KEPT) * found
    jumped = (found > _FOLD * before) | (before > _FOLD * found)
    kept: np.ndarray = np.where(jumped, before, moved)
    return kept
