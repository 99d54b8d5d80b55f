"""Head gradients weighted inversely to their accumulated size: every class's row moves equally fast.

BRIQA, arXiv 2510.26661, weighs classes by the size of their gradients; its exact rule is not public. This is the rule
of its family, He, "Gradient Reweighting: Towards Imbalanced Class-Incremental Learning", CVPR 2024: with G_c the sum
over the steps so far of ||dL/dw_c||, the gradient of row c of the head (and of its bias) is multiplied by
w_c = min_j G_j / G_c before the optimiser's step, where L is the loss with all terms of the other objectives before it.

It changes how fast rows move, not where they stop: no logit is shifted. Sums start anew in every round, so nothing more
is kept or sent. A class without rows here is not among the j and has w_c = 1 at most: it is only ever pushed down,
which its small sum must neither speed up nor use to slow the others.
"""

import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.registry import register
from fedimb.training.objectives.base import LocalObjective


@register("objective", "grad_reweight", stackable=False, tasks=("multiclass", "multilabel"))
class GradientReweighting(LocalObjective):
    """Weighs the gradients of the head's rows by min_j G_j / G_c of their sizes summed over the round's steps.

    Raises:
        ConfigError: the head has no trained rows, one per class.
    """

    name = "grad_reweight"

    def __init__(self) -> None:
        self._present = self._sums = torch.zeros(0)
        self._rows: list[int] = []

    def on_rows(self, labels: Tensor) -> None:
        """Store the classes that the client holds."""
        self._present = labels.unique()

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Find the head's rows, the weight first, among the trained parameters."""
        assert isinstance(model, Classifier)
        own = (model.head.weight, model.head.bias)
        self._rows = [i for one in own for i, p in enumerate(parameters) if p is one]
        if not model.head.weight.requires_grad:
            raise ConfigError(
                f"objective '{self.name}' weighs the gradients of the head's rows, which are fixed here: use "
                "model.head=linear, or leave the objective out"
            )
        self._sums = parameters[self._rows[0]].new_zeros(model.head.out_features, dtype=torch.float64)

    @torch.no_grad()
    def on_gradients(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Add this step's sizes, then multiply the gradients of weight and bias."""
        self._sums += gradients[self._rows[0]].double().flatten(1).norm(dim=1)
        weights = self.weights(self._sums, self._present)
        for at in self._rows:
            gradient = gradients[at]
            gradient.mul_(weights.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1)))

    def weights(self, sums: Tensor, present: Tensor) -> Tensor:
        """`class_weights`."""
        return class_weights(sums, present)


def class_weights(sums: Tensor, present: Tensor) -> Tensor:
    """Sizes G [C] >= 0 and the ids of the classes with rows [k] -> weights [C] in (0, 1]; 1 where G is 0.

    Example:
        >>> class_weights(torch.tensor([8.0, 2.0, 0.5]), torch.tensor([0, 1])).tolist()
        [0.25, 1.0, 1.0]
    """
    held = sums[present]
    least = held[held > 0].min() if (held > 0).any() else sums.new_zeros(())
    return torch.where(sums > 0, (least / sums.clamp_min(torch.finfo(sums.dtype).tiny)).clamp_max(1.0), 1.0)
