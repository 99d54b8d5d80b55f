"""BalanceFL's smooth augmentation: noise on the features of rows of rare classes, for the loss only.

Shuai et al., "BalanceFL", IPSN 2022: with probability 1 - n_kc / max_c n_kc a row of class c gets noise N(0, Sigma)
on its features, Sigma the mean of the covariances of the client's classes under the received model, weighted by their
rows.
"""

import numpy as np
import torch
from torch import Tensor, nn

from fedimb.models.base import Classifier
from fedimb.registry import register
from fedimb.training.forward import forward_batched
from fedimb.training.objectives.base import LocalObjective


def pooled_covariance(features: Tensor, labels: Tensor) -> Tensor:
    """Features [n, d] and labels [n] int64 -> [d, d] float64: the mean of the classes' sample covariances (by their
    rows minus 1), weighted by their rows; a class of one row has covariance 0.
    """
    rows = features.double()
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for label in labels.unique():
        own = rows[labels == label]
        if len(own) > 1:
            centred = own - own.mean(dim=0)
            total += len(own) / (len(own) - 1) * (centred.T @ centred)
    return total / max(len(labels), 1)


def noise_probability(counts: np.ndarray) -> np.ndarray:
    """Rows of each class [C] -> 1 - n_c / max n, float64."""
    counts = np.asarray(counts, dtype=np.float64)
    chance: np.ndarray = 1 - counts / max(counts.max(), 1.0)
    return chance


@register("objective", "feature_noise", stackable=False)
class FeatureNoise(LocalObjective):
    """Shows the loss logits of features with noise: the rarer a row's class at the client, the more often.

    Other local objectives see the logits without noise.
    """

    def __init__(self) -> None:
        self._model: Classifier | None = None
        self._root = self._chance = torch.zeros(0)
        self._generator: torch.Generator | None = None

    def before_training(self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """One pass over the rows for Sigma's root."""
        assert isinstance(model, Classifier)
        features, logits = forward_batched(model, inputs)
        model.train()
        values, vectors = torch.linalg.eigh(pooled_covariance(features, labels))
        self._root = (vectors * values.clamp_min(0).sqrt()).to(features.dtype)
        counts = torch.bincount(labels, minlength=logits.shape[1]).cpu().numpy()
        self._chance = torch.from_numpy(noise_probability(counts)).to(features)
        self._model, self._generator = model, generator

    def on_logits(self, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits of the features with noise [n, C]."""
        assert self._model is not None
        drawn, device = self._generator, features.device
        noisy = torch.rand(len(labels), generator=drawn, device=device) < self._chance[labels]
        noise = torch.randn(features.shape, generator=drawn, device=device) @ self._root.T
        shown: Tensor = self._model.head(features + noise * noisy[:, None])
        return shown
