"""Class centres in feature space: those of a client, and those of the server over all clients.

FedCS (CVPR 2025), following its released code: a client's centre is its class mean; the server's is the element-wise
median over the clients that hold the class, one vote per client.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from fedimb.errors import DataError
from fedimb.selection.checks import finite_rows, labels_fit


def class_means(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """[n, d] float, [n] int64 -> [C, d] float32 means, NaN for a class without rows.

    Raises:
        DataError: shapes do not match, a label is out of range, or a value is not finite.
    """
    labels_fit(labels, len(features), n_classes, "class centres")
    sums = torch.zeros(n_classes, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels, finite_rows(features, "features").double())
    counts = torch.bincount(labels, minlength=n_classes)[:, None]
    return torch.where(counts > 0, sums / counts, torch.nan).float()


def median_of_centres(centres: Tensor) -> Tensor:
    """Element-wise median over clients; NaN marks a client without the class.

    Args:
        centres: [K, C, d] float, K >= 1.

    Returns:
        [C, d] float32; for an even number of clients the mean of the middle two; NaN if no client has the class.

    Raises:
        DataError: not three dimensions, or no client.
    """
    if centres.ndim != 3 or len(centres) == 0:
        raise DataError(f"need the centres of at least one client, [K, C, d]; got {tuple(centres.shape)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns about a class that no client has
        return torch.from_numpy(np.nanmedian(centres.double().numpy(), axis=0)).float()
