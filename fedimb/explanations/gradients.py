"""Attributions by gradients, computed with captum: integrated_gradients and grad_cam."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.explanations.attribution import Attribution, Baseline
from fedimb.explanations.base import Floor
from fedimb.explanations.layout import InputLayout
from fedimb.explanations.quality import RANDOM_MODELS
from fedimb.models.base import Classifier
from fedimb.registry import register
from fedimb.registry.arguments import Count, PositiveCount


@register("explanation", "integrated_gradients")
class IntegratedGradients(Attribution):
    """Gradients along the straight line from the baseline to the row, times the difference (Sundararajan et al., ICML
    2017).

    The attributions of a row sum to its logit's difference from the baseline's; of a linear model they are
    w (x - x0).

    Args:
        floor, rows, baseline, randomized, pictures: see `Attribution`.
        steps: points on the line.
    """

    name = "integrated_gradients"

    def __init__(
        self,
        floor: Annotated[int, Floor] = 10,
        rows: PositiveCount = 50,
        baseline: Baseline = "zero",
        randomized: Count = RANDOM_MODELS,
        pictures: Count = 3,
        steps: PositiveCount = 32,
    ) -> None:
        super().__init__(floor, rows, baseline, randomized, pictures)
        self.steps = steps

    def attribute(self, model: Classifier, x: Tensor, target: Tensor, baseline: Tensor, layout: InputLayout) -> Tensor:
        """See `Attribution.attribute`."""
        from captum.attr import IntegratedGradients as ByCaptum

        found: Tensor = ByCaptum(model).attribute(
            x, baseline.expand_as(x), target=target, n_steps=self.steps, internal_batch_size=256
        )
        return found


@register("explanation", "grad_cam")
class GradCam(Attribution):
    """Maps of the last convolution weighted by their mean gradient, for pictures and signals (Selvaraju et al., ICCV
    2017).

    The last convolution that still has more than one place; its map is interpolated to the row's size. What is shown
    is what speaks for the class; the sanity check uses both signs.

    Args:
        floor, rows, randomized, pictures: see `Attribution`.
    """

    name = "grad_cam"
    rectified = True

    def __init__(
        self,
        floor: Annotated[int, Floor] = 10,
        rows: PositiveCount = 50,
        randomized: Count = RANDOM_MODELS,
        pictures: Count = 3,
    ) -> None:
        super().__init__(floor, rows, "zero", randomized, pictures)

    def check(self, model: Classifier, layout: InputLayout, task: str, class_names: Any) -> None:
        """Refuse a model without a convolution that has more than one place."""
        super().check(model, layout, task, class_names)
        last_convolution(model, layout)

    def attribute(self, model: Classifier, x: Tensor, target: Tensor, baseline: Tensor, layout: InputLayout) -> Tensor:
        """See `Attribution.attribute`; every channel gets the same map."""
        from captum.attr import LayerGradCam

        layer = last_convolution(model, layout)
        found: Tensor = LayerGradCam(model, layer).attribute(x.requires_grad_(), target=target)
        signal = found.dim() == 3
        size = layout.shape[-1:] if signal else layout.shape[-2:]
        mode = "linear" if signal else "bilinear"
        grown = nn.functional.interpolate(found.detach(), size=size, mode=mode, align_corners=False)
        if len(layout.shape) == 2 and not signal:  # grey pictures without an axis of channels
            return grown[:, 0]
        return grown.expand(-1, layout.shape[0], *size)


def last_convolution(model: Classifier, layout: InputLayout) -> nn.Module:
    """The convolution that is computed last among those whose output has more than one place.

    Raises:
        ConfigError: there is none.
    """
    found: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output[0, 0].numel() > 1:
            found.append(module)

    kinds = (nn.Conv1d, nn.Conv2d)
    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, kinds)]
    training = model.training
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, *layout.shape))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    if not found:
        raise ConfigError(
            "explanation 'grad_cam' reads the last convolution of a model of pictures or signals, and this model has "
            "none with more than one place: use integrated_gradients"
        )
    return found[-1]
