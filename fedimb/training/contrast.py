"""FedIIC's losses and prototypes: contrast inside a client and to prototypes of all clients, adjusted for rare classes.

Wu et al., "FedIIC: Towards Robust Federated Learning for Class-Imbalanced Medical Image Classification", MICCAI 2023.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

_LEAST = 1e-5


def difficulty_shift(log_shares: Tensor, class_losses: Tensor, exponent: float) -> Tensor:
    """log( pi_c / (l_c^exponent + 1e-5) ) [C] of log shares [C] and the classes' mean losses l [C], >= 0."""
    return log_shares - torch.log(class_losses**exponent + _LEAST)


def intra_contrast(views: Tensor, labels: Tensor, shares: Tensor, floor: float) -> Tensor:
    """Supervised contrast over the 2n views of a batch: the mean over all views of their mean over the positives.

    The temperature of a pair of views i, j is max(sqrt(pi_{y_i} pi_{y_j}), floor): rare classes are told apart sharply.

    Args:
        views: [n, 2, p], of length 1.
        labels: [n] int64.
        shares: the client's class shares pi [C].
        floor: the least temperature, > 0.
    """
    rows, classes = views.transpose(0, 1).flatten(0, 1), labels.repeat(2)
    own = shares[classes]
    likeness = rows @ rows.T / torch.sqrt(own[:, None] * own[None]).clamp_min(floor)
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    log_p = likeness - likeness.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    positive = (classes[:, None] == classes[None]) & ~itself  # at least the row's other view
    return -(torch.where(positive, log_p, 0.0).sum(dim=1) / positive.sum(dim=1)).mean()


def inter_contrast(views: Tensor, labels: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of both views' cosines to the prototypes over the temperature.

    Args:
        views: [n, 2, p], of length 1.
        labels: [n] int64.
        prototypes: [C, p], of length 1.
    """
    rows = views.transpose(0, 1).flatten(0, 1)
    return cross_entropy(rows @ prototypes.T / temperature, labels.repeat(2))


def spread_apart(prototypes: Tensor, steps: int, lr: float) -> Tensor:
    """Prototypes [C, p] after SGD on sum_c max(0, max_{j != c} cos(p_c, p_j)): none is left near another.

    A class whose largest cosine is below 0 is not pushed any more.
    """
    moved = prototypes.detach().clone().requires_grad_()
    others = 1 - torch.eye(len(moved), dtype=moved.dtype)
    with torch.enable_grad():
        for _ in range(steps):
            directions = normalize(moved, dim=1)
            nearest = (directions @ directions.T * others).max(dim=1).values  # the row's own entry is the 0
            (slope,) = torch.autograd.grad(nearest.sum(), moved)
            moved = (moved.detach() - lr * slope).requires_grad_()
    return moved.detach()
