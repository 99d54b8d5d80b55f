"""Class prototypes and the resulting pseudo-labels: a row belongs to the class whose mean direction is nearest.

The second step of FairFAL (Zong & Huang, arXiv 2603.10341): z = phi / |phi|, mu_c = the mean of z over the labelled
rows of class c, normalised again, y^ = argmax_c <z, mu_c>. The features are always the global model's. In the paper
prototypes are a client's own; `shared_prototypes`, an addition, pools the sums of many clients: it gives a client a
prototype of a class it has not labelled.
"""

import torch
from torch import Tensor


def unit(features: Tensor) -> Tensor:
    """Rows divided by their length: [n, d] -> [n, d] float64. A row of length 0 stays 0."""
    wide = features.double()
    return wide / wide.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def prototype_sums(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Sum of the unit features of each class: what clients would add up to share prototypes.

    Args:
        features: [m, d].
        labels: [m] int64 in [0, C).
        n_classes: C.

    Returns:
        [C, d] float64, 0 for a class without rows.
    """
    total = torch.zeros(n_classes, features.shape[1], dtype=torch.float64)
    return total.index_add_(0, labels, unit(features))


def shared_prototypes(sums: Tensor) -> Tensor:
    """Unit prototypes of class sums: [..., C, d] of any number of clients -> [C, d] float32.

    The mean's direction is the sum's, so no counts are needed. NaN for a class without rows, or whose rows cancel out
    and so have no direction.
    """
    total = sums.double().reshape(-1, *sums.shape[-2:]).sum(0)
    length = total.norm(dim=1, keepdim=True)
    # Rows that cancel out leave rounding errors of about 1e-16 per row, not 0.
    return torch.where(length > 1e-9, total / length, torch.nan).float()


def class_prototypes(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """A client's own prototypes: features [m, d], labels [m] int64 -> [C, d] float32, NaN for a class without rows."""
    return shared_prototypes(prototype_sums(features, labels, n_classes))


def pseudo_labels(features: Tensor, prototypes: Tensor) -> Tensor:
    """The class of the nearest prototype by cosine, among classes that have one; ties to the lower class id.

    Args:
        features: [n, d].
        prototypes: [C, d], unit rows, NaN for a class without a prototype.

    Returns:
        [n] int64; -1 everywhere when no class has a prototype.
    """
    have = ~prototypes.isnan().any(1)
    if not have.any():
        return torch.full((len(features),), -1, dtype=torch.int64)
    classes = have.nonzero().flatten()
    # The row's own length does not change the argmax.
    return classes[(features.double() @ prototypes[have].double().T).argmax(1)]
