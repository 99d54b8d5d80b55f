"""Attributions by switching inputs off, computed with captum: shapley_sampling, kernel_shap and lime.

Inputs are switched off, that is set to the baseline, in groups: the columns of a table, squares of a picture over all
channels, windows of a signal.
"""

import warnings
from typing import Annotated, Any

import torch
from torch import Tensor

from fedimb.explanations.attribution import Attribution, Baseline
from fedimb.explanations.base import Floor
from fedimb.explanations.layout import InputLayout
from fedimb.explanations.quality import RANDOM_MODELS
from fedimb.models.base import Classifier
from fedimb.registry import register
from fedimb.registry.arguments import Count, NonNegative, PositiveCount

_AT_ONCE = 64


class Perturbation(Attribution):
    """Base of attributions that switch groups of inputs off; a subclass implements `contributions`.

    Args:
        floor, rows, baseline, randomized, pictures: see `Attribution`.
        samples: how often a row is changed.
        square: side of a picture's squares, or length of a signal's windows.
    """

    def __init__(
        self,
        floor: Annotated[int, Floor] = 10,
        rows: PositiveCount = 20,
        baseline: Baseline = "zero",
        randomized: Count = RANDOM_MODELS,
        pictures: Count = 3,
        samples: PositiveCount = 50,
        square: PositiveCount = 4,
    ) -> None:
        super().__init__(floor, rows, baseline, randomized, pictures)
        self.samples, self.square = samples, square

    def attribute(self, model: Classifier, x: Tensor, target: Tensor, baseline: Tensor, layout: InputLayout) -> Tensor:
        """See `Attribution.attribute`; a group's contribution is shared evenly by its inputs."""
        mask = layout.feature_mask(self.square)
        sizes = torch.bincount(mask.flatten()).float()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # captum: of rows that are explained one by one, as they are
            found = self.contributions(model, x, target, baseline, mask)
        return found / sizes[mask]

    def contributions(self, model: Classifier, x: Tensor, target: Tensor, baseline: Tensor, mask: Tensor) -> Tensor:
        """[n, *shape]: at every input the contribution of its group, by ``mask`` [1, *shape]."""
        raise NotImplementedError(f"{type(self).__name__} must implement contributions()")


@register("explanation", "shapley_sampling")
class ShapleySampling(Perturbation):
    """Shapley values estimated by random orders in which inputs are switched on (Castro et al., 2009).

    Of a linear model they are w (x - x0) after a single order.

    Args:
        floor, rows, baseline, randomized, pictures, square: see `Perturbation`.
        samples: random orders of each row.
    """

    name = "shapley_sampling"

    def __init__(
        self,
        floor: Annotated[int, Floor] = 10,
        rows: PositiveCount = 20,
        baseline: Baseline = "zero",
        randomized: Count = RANDOM_MODELS,
        pictures: Count = 3,
        samples: PositiveCount = 10,
        square: PositiveCount = 4,
    ) -> None:
        super().__init__(floor, rows, baseline, randomized, pictures, samples, square)

    def contributions(self, model: Classifier, x: Tensor, target: Tensor, baseline: Tensor, mask: Tensor) -> Tensor:
        """See `Perturbation.contributions`."""
        from captum.attr import ShapleyValueSampling

        found: Tensor = ShapleyValueSampling(model).attribute(
            x, baseline, target=target, feature_mask=mask, n_samples=self.samples, perturbations_per_eval=8
        )
        return found


@register("explanation", "kernel_shap")
class KernelShap(Perturbation):
    """Shapley values by weighted least squares over random sets of inputs (Lundberg and Lee, NeurIPS 2017).

    Args:
        floor, rows, baseline, randomized, pictures, square: see `Perturbation`.
        samples: random sets of each row; of fewer sets than inputs only a fit of least norm is given.
    """

    name = "kernel_shap"
    checked_rows = 8

    def __init__(
        self,
        floor: Annotated[int, Floor] = 10,
        rows: PositiveCount = 10,
        baseline: Baseline = "zero",
        randomized: Count = RANDOM_MODELS,
        pictures: Count = 3,
        samples: PositiveCount = 100,
        square: PositiveCount = 4,
    ) -> None:
        super().__init__(floor, rows, baseline, randomized, pictures, samples, square)

    def contributions(self, model: Classifier, x: Tensor, target: Tensor, baseline: Tensor, mask: Tensor) -> Tensor:
        """See `Perturbation.contributions`."""
        from captum.attr import KernelShap as ByCaptum

        return _one_by_one(ByCaptum(model), x, target, baseline, mask, self.samples)


@register("explanation", "lime")
class Lime(Perturbation):
    """A linear model fitted around each row (Ribeiro et al., KDD 2016): ridge regression on which inputs are there.

    Sets of inputs are drawn evenly and weighted by their distance from the row, as in the paper.

    Args:
        floor, rows, baseline, randomized, pictures, square: see `Perturbation`.
        samples: random sets of each row.
        penalty: of the ridge regression; 0: ordinary least squares.
    """

    name = "lime"
    checked_rows = 8

    def __init__(
        self,
        floor: Annotated[int, Floor] = 10,
        rows: PositiveCount = 10,
        baseline: Baseline = "zero",
        randomized: Count = RANDOM_MODELS,
        pictures: Count = 3,
        samples: PositiveCount = 100,
        square: PositiveCount = 4,
        penalty: NonNegative = 0.01,
    ) -> None:
        super().__init__(floor, rows, baseline, randomized, pictures, samples, square)
        self.penalty = penalty

    def contributions(self, model: Classifier, x: Tensor, target: Tensor, baseline: Tensor, mask: Tensor) -> Tensor:
        """See `Perturbation.contributions`."""
        from captum._utils.models.linear_model import SkLearnLinearRegression, SkLearnRidge
        from captum.attr import Lime as ByCaptum

        fit = SkLearnRidge(alpha=self.penalty) if self.penalty else SkLearnLinearRegression()
        return _one_by_one(ByCaptum(model, interpretable_model=fit), x, target, baseline, mask, self.samples)


def _one_by_one(method: Any, x: Tensor, target: Tensor, baseline: Tensor, mask: Tensor, samples: int) -> Tensor:
    """captum fits one row at a time: its batches are rows that are explained together."""
    found = [
        method.attribute(
            x[i : i + 1],
            baseline,
            target=int(target[i]),
            feature_mask=mask,
            n_samples=samples,
            perturbations_per_eval=_AT_ONCE,
        )
        for i in range(len(x))
    ]
    return torch.cat(found)
