"""Retrains the head on virtual features: classifier calibration after federated training.

CCVR: Luo, Chen, Hu, Zhang, Liang, Feng, "No Fear of Heterogeneity", NeurIPS 2021. Each client reports the row
count, mean and covariance of every class's features (eq. 4 and 5 pool them exactly to those of all rows together); the
server draws equally many features per class from Gaussians and retrains the linear head on them.

    mu_c = sum_k n_kc mu_kc / n_c
    S_c  = [sum_k (n_kc - 1) S_kc + sum_k n_kc (mu_kc - mu_c)(mu_kc - mu_c)^T] / (n_c - 1)

Differences from the paper: the second line subtracts the means first, which gives the same result without cancellation;
a class with fewer than two rows borrows the mean covariance of the others; a class nobody has is left out, and its row
of the head is unchanged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedimb.errors import ConfigError, DataError
from fedimb.training.optim import SGD

HEAD_BATCH = 64
"""Rows of a step of `retrain_head`."""


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """Rows, means and covariances per class.

    Attributes:
        counts: [C] int64.
        mean: [C, d] float64, 0 for a class without rows.
        covariance: [C, d, d] float64, divided by n_c - 1; 0 for a class with fewer than two rows.
    """

    counts: Tensor
    mean: Tensor
    covariance: Tensor


def class_gaussians(features: Tensor, y: Tensor, n_classes: int, least: int = 1) -> ClassGaussians:
    """A client's report: 8 + 8 d + 8 d^2 bytes per class as float64.

    Args:
        features: [n, d] float.
        y: [n] int64.
        least: rows a class needs to be reported; with 1, the mean of a one-row class is that row's features.

    Raises:
        DataError: rows that do not fit or are not finite.
        ConfigError: ``least`` below 1.
    """
    if least < 1:
        raise ConfigError(f"min_count={least}: give at least 1 (1 reports every class)")
    if features.dim() != 2 or y.shape != (len(features),):
        raise DataError(f"give features [n, d] and labels [n]; got {list(features.shape)} and {list(y.shape)}")
    if not torch.isfinite(features).all():
        raise DataError("features are NaN or infinite: the model has diverged, or a row is corrupt")
    size = features.shape[1]
    counts = torch.bincount(y, minlength=n_classes)
    if len(counts) > n_classes:
        raise DataError(f"label {int(y.max())} is not one of 0 to {n_classes - 1}; fix the labels")
    counts = torch.where(counts < least, 0, counts)
    mean, covariance = torch.zeros(n_classes, size).double(), torch.zeros(n_classes, size, size).double()
    for c in torch.nonzero(counts)[:, 0].tolist():
        rows = features[y == c].double()
        mean[c] = rows.mean(0)
        if len(rows) > 1:
            centred = rows - mean[c]
            covariance[c] = centred.T @ centred / (len(rows) - 1)
    return ClassGaussians(counts, mean, covariance)


def pool(parts: Sequence[ClassGaussians]) -> ClassGaussians:
    """Pool to the Gaussians of all clients' rows together, in float64; the order matters only for rounding.

    Raises:
        DataError: no parts, shapes that differ, negative counts, or values that are not finite.
    """
    if len({(part.counts.shape, part.mean.shape, part.covariance.shape) for part in parts}) != 1:
        raise DataError("cannot pool class Gaussians: need at least one client, all with the same classes and model")
    for k, part in enumerate(parts):
        if (part.counts < 0).any() or not (torch.isfinite(part.mean).all() and torch.isfinite(part.covariance).all()):
            raise DataError(f"cannot pool class Gaussians: part {k} has negative counts or values that are not finite")
    counts = torch.stack([part.counts for part in parts])
    rows = counts.double()
    total = rows.sum(0)
    means = torch.stack([part.mean.double() for part in parts])
    mean = torch.einsum("kc,kcd->cd", rows / total.clamp(min=1), means)
    scatter = torch.zeros_like(parts[0].covariance, dtype=torch.float64)
    for part, own, off in zip(parts, rows, means - mean, strict=True):  # one client's [C, d, d] at a time
        scatter += (own - 1).clamp(min=0).view(-1, 1, 1) * part.covariance.double()
        scatter += torch.einsum("c,cd,ce->cde", own, off, off)
    return ClassGaussians(counts.sum(0), mean, scatter / (total - 1).clamp(min=1).view(-1, 1, 1))


def virtual_features(
    gaussians: ClassGaussians, per_class: int, generator: torch.Generator, nonnegative: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw features from each class's Gaussian.

    Args:
        per_class: draws for every class that has rows.
        generator: source of all randomness.
        nonnegative: clip at 0 from below, like features after a ReLU.

    Returns:
        (features [m, d] float32, classes [m] int64), by class.

    Raises:
        ConfigError: ``per_class`` below 1.
        DataError: no class has rows.
    """
    if per_class < 1:
        raise ConfigError(f"virtual features per class: {per_class}: give at least 1")
    held = torch.nonzero(gaussians.counts > 0)[:, 0].tolist()
    if not held:
        raise DataError("no class has rows to draw features from: no client reported any (see min_count)")
    weight = (gaussians.counts.double() - 1).clamp(min=0)
    shared = torch.einsum("c,cde->de", weight / weight.sum().clamp(min=1), gaussians.covariance)
    drawn = []
    for c in held:
        covariance = gaussians.covariance[c] if gaussians.counts[c] > 1 else shared
        values, vectors = torch.linalg.eigh(covariance)  # singular wherever n_c <= d: no Cholesky factor
        noise = torch.randn(per_class, len(values), generator=generator, dtype=torch.float64)
        drawn.append(gaussians.mean[c] + noise * values.clamp(min=0).sqrt() @ vectors.T)
    made = torch.cat(drawn)
    classes = torch.tensor(held).repeat_interleave(per_class)
    return (made.clamp(min=0) if nonnegative else made).float(), classes


def retrain_head(
    weight: Tensor,
    bias: Tensor,
    features: Tensor,
    y: Tensor,
    generator: torch.Generator,
    epochs: int = 20,
    lr: float = 1.0,
    momentum: float = 0.9,
    batch_size: int = HEAD_BATCH,
) -> tuple[Tensor, Tensor]:
    """Train a linear head further by cross-entropy over the classes that have rows; the others' rows stay unchanged.

    The learning rate falls to 0 by a half cosine. Features are scaled by one number (the root of their mean squared
    length), so that one learning rate suits models of any scale and width; the head returned fits the unscaled
    features.

    Args:
        weight, bias: [C, d] and [C] float32, the initial head.
        features, y: [n, d] float32 and [n] int64.
        generator: source of the row order.
        epochs, lr, momentum, batch_size: settings of stochastic gradient descent.

    Returns:
        (weight, bias), new tensors.

    Raises:
        ConfigError: epochs or batch size below 1, or a learning rate that is not above 0.
        DataError: shapes that do not fit, or no rows.
    """
    if epochs < 1 or batch_size < 1 or not lr > 0:
        raise ConfigError(f"head: epochs={epochs}, batch_size={batch_size}, lr={lr}: give at least 1, 1 and above 0")
    if len(y) == 0 or features.shape != (len(y), weight.shape[1]) or bias.shape != (len(weight),):
        raise DataError(
            f"head {list(weight.shape)} with bias {list(bias.shape)} does not match features {list(features.shape)} "
            f"and {len(y)} labels"
        )
    scale = features.square().sum(1).mean().sqrt().clamp(min=1e-12)
    x = features / scale
    present = torch.unique(y)
    place = torch.full((len(weight),), -1, dtype=torch.int64)
    place[present] = torch.arange(len(present))
    w, b = (weight[present] * scale).requires_grad_(), bias[present].clone().requires_grad_()
    optimiser = SGD([w, b], lr, momentum, weight_decay=0.0)
    steps, done = epochs * -(-len(y) // batch_size), 0
    for _ in range(epochs):
        for rows in torch.randperm(len(y), generator=generator).split(batch_size):
            optimiser.lr = lr * (1 + math.cos(math.pi * done / steps)) / 2
            loss = torch.nn.functional.cross_entropy(x[rows] @ w.T + b, place[y[rows]])
            optimiser.step(list(torch.autograd.grad(loss, [w, b])))
            done += 1
    new_weight, new_bias = weight.clone(), bias.clone()
    new_weight[present], new_bias[present] = (w / scale).detach(), b.detach()
    return new_weight, new_bias
