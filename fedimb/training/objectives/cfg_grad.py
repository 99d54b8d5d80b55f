"""Calibrated gradients of the head where classes arrive in phases: old and new classes each among themselves, then
against each other.

EndoCIL's CFG, arXiv 2510.17200, calibrates the gradients of the fully connected layer between old and new classes; its
rule is not public. This is the rule of its family, He, "Gradient Reweighting: Towards Imbalanced Class-Incremental
Learning", CVPR 2024. With G_c the sum over the round's steps of ||dL/dw_c|| and M_old, M_new the means of G over the
client's old and new classes, the gradient of row c (and of its bias) is multiplied by

    old c:  min over old j of G_j / G_c  times  min(1, M_new / M_old)
    new c:  min over new j of G_j / G_c  times  min(1, gamma M_new / M_old)

In the first phase, or at a client without rows of old (or new) classes, the second factors are 1: with all classes new
this is `grad_reweight`. A class without rows at the client, and one that is still to come, is not among the j nor in
the means; its own factor is 1 at most. The release weighs the gradient of the classification loss alone and rescales
that of its distillation; here L includes the objectives before this one.
"""

import math

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor

from fedimb.contracts.class_incremental import STATE_OF_PHASE
from fedimb.errors import ConfigError
from fedimb.records import to_numpy
from fedimb.registry import register
from fedimb.training.objectives.grad_reweight import GradientReweighting, class_weights


@register("objective", "cfg_grad", stackable=False, needs_phases="grad_reweight")
class CalibratedGradients(GradientReweighting):
    """Weighs the gradients of the head's rows within old and within new classes, then between the two groups.

    Args:
        gamma: of the new classes' common factor, > 0 and finite.

    Raises:
        ConfigError: any other gamma; the head has no trained rows, one per class.
    """

    name = "cfg_grad"

    def __init__(self, gamma: float = 1.0) -> None:
        if not 0 < gamma < math.inf:
            raise ConfigError(f"objective 'cfg_grad': gamma must be > 0 and finite; got {gamma}")
        super().__init__()
        self.gamma = gamma
        self._old = np.zeros(0, np.int64)

    def receive(self, content: RecordDict, state: RecordDict) -> None:
        """Read which classes are of earlier phases."""
        if STATE_OF_PHASE in state:
            self._old = to_numpy(state.array_records[STATE_OF_PHASE])["old"]

    def weights(self, sums: Tensor, present: Tensor) -> Tensor:
        """`calibrated_weights`."""
        old = torch.zeros(len(sums), dtype=torch.bool, device=sums.device)
        old[torch.from_numpy(self._old.copy()).to(sums.device)] = True
        return calibrated_weights(sums, present, old, self.gamma)


def calibrated_weights(sums: Tensor, present: Tensor, old: Tensor, gamma: float = 1.0) -> Tensor:
    """Factors [C] in (0, 1] of the gradients of the head's rows.

    Args:
        sums: sizes G [C] >= 0.
        present: ids of the classes with rows [k].
        old: [C] bool, classes of earlier phases.
        gamma: see above.

    Example:
        >>> old = torch.tensor([True, True, False, False])
        >>> calibrated_weights(torch.tensor([8.0, 4.0, 2.0, 1.0]), torch.arange(4), old).tolist()
        [0.125, 0.25, 0.125, 0.25]
    """
    held = torch.zeros_like(old)
    held[present] = True
    weights, means = torch.ones_like(sums), []
    for group in (old, ~old):
        own = torch.nonzero(held[group]).flatten()
        if len(own):  # otherwise nothing here says how fast the group should move
            weights[group] = class_weights(sums[group], own)
            means.append(sums[group][own].mean())
    if len(means) == 2 and means[0] > 0 and means[1] > 0:
        ratio = means[1] / means[0]
        weights[old] *= ratio.clamp_max(1.0)
        weights[~old] *= (gamma * ratio).clamp_max(1.0)
    return weights
