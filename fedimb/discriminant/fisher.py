"""GH-OFL's Fisher space and its trained head FisherMix: "One-Shot Federated Learning", arXiv 2602.01186.

FisherMix draws rows from class Gaussians in the Fisher space and trains a linear head on them. With a covariance that
all classes share it returns the boundary of discriminant analysis, plus noise; it is here to compare with.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from fedimb.discriminant.estimates import means_of, within_of
from fedimb.discriminant.heads import Scores
from fedimb.discriminant.statistics import Floats, Statistics

RIDGE = 1e-6
_ENERGY = 0.995
_MOST, _FEWEST = 16, 2
_TEMPERATURE = 0.9
_BATCH, _LR, _DECAY = 2048, 8e-4, 3e-4
_EPOCHS = 40


@dataclass(frozen=True, eq=False)
class FisherSpace:
    """Directions that separate the classes.

    Attributes:
        basis: V [d, k]; the sign of a column is arbitrary.
        means: class means [C, k].
        covariance: V' S V [k, k].
        eigenvalues: of the whitened covariance between classes [d], largest first.
    """

    basis: Floats
    means: Floats
    covariance: Floats
    eigenvalues: Floats


def fisher_space(statistics: Statistics, shrinkage: float = 0.05) -> FisherSpace:
    """The leading eigenvectors of S^-1/2 B S^-1/2, S the shrunk within-class covariance, B between classes weighted by
    rows; as many as hold .995 of the trace, from 2 to 16."""
    within = within_of(statistics)
    width = len(within.values)
    values = within.shrunk(shrinkage) + RIDGE
    root = (within.basis / np.sqrt(values)) @ within.basis.T
    means, share = means_of(statistics), statistics.counts / statistics.counts.sum()
    off = means - share @ means
    between = (off * share[:, None]).T @ off
    found, vectors = np.linalg.eigh(root @ between @ root)
    found, vectors = np.maximum(found[::-1], 0.0), vectors[:, ::-1]
    reached = np.cumsum(found) / max(float(found.sum()), 1e-300)
    most = min(max(int((reached < _ENERGY).sum()) + 1, _FEWEST), _MOST, width)
    basis = root @ vectors[:, :most]
    covariance = basis.T @ ((within.basis * values) @ within.basis.T) @ basis
    return FisherSpace(basis, means @ basis, covariance, found)


def mix_steps(classes: int, draws: int, epochs: int = _EPOCHS) -> int:
    """Optimiser steps of `fisher_mix` over so many classes."""
    return epochs * math.ceil(classes * draws / _BATCH)


def fisher_mix(
    statistics: Statistics,
    log_prior: Floats,
    generator: torch.Generator,
    shrinkage: float = 0.05,
    draws: int = 4000,
    epochs: int = _EPOCHS,
) -> Scores:
    """A linear softmax head trained by AdamW on Gaussian draws in the Fisher space, equally many per class.

    Args:
        log_prior: added to the bias; the draws are balanced, so zeros are the uniform prior.
        generator: source of draws and their order.
        shrinkage: of the within-class covariance.
        draws: rows per class.
        epochs: passes over them.
    """
    space = fisher_space(statistics, shrinkage)
    classes, width = space.means.shape
    spread = np.linalg.cholesky(_TEMPERATURE**2 * space.covariance + RIDGE * np.eye(width))
    noise = torch.randn(classes, draws, width, generator=generator, dtype=torch.float64)
    x = (torch.from_numpy(space.means)[:, None] + noise @ torch.from_numpy(spread).T).flatten(0, 1).float()
    y = torch.arange(classes).repeat_interleave(draws)
    weight, bias = torch.zeros(classes, width, requires_grad=True), torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=_LR, weight_decay=_DECAY)
    for _ in range(epochs):
        for rows in torch.randperm(len(y), generator=generator).split(_BATCH):
            loss = F.cross_entropy(x[rows] @ weight.T + bias, y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    inside = weight.detach().double().numpy()
    return Scores(inside @ space.basis.T, bias.detach().double().numpy() + log_prior)
