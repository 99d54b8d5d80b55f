"""FedNPC: the trained classifier is fitted to random labels of noise for a few steps, which shrinks and levels its
rows.

Gao et al., "FedNPC", CVPR Findings 2026: for each of E - 1 steps new X ~ N(0, I) [M, d] and y uniform over the classes,
then one step of SGD with momentum on the mean cross-entropy of (w, b). The optimum of this objective is w = 0, b = 0:
the effect is that of stopping early. E is 28 for 10 classes and 50 for 100, which is 27 and 49 steps. The paper's
code keeps the best step on the test rows; here the number of steps is fixed.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import Count, Decay, Positive, PositiveCount, in_range
from fedimb.seeds import Stream, torch_generator
from fedimb.training.calibrations.base import Calibration, Outputs

Head = tuple[Tensor, Tensor | None]
"""Weight [C, d] and bias [C], or None."""


@register("calibration", "fednpc", adjusts_logits=False, needs_prior=False, changes_head=True)
class NoisePriorCalibration(Calibration):
    """Fits the classifier to random labels of normal noise for a few steps.

    Args:
        seed: of the noise, the run's (given by fedimb).
        rows: M, rows of noise in each step.
        steps: steps; 0 changes nothing.
        lr: learning rate, > 0.
        momentum: in [0, 1).

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        seed: int = 0,
        rows: PositiveCount = 10_000,
        steps: Count = 27,
        lr: Positive = 0.1,
        momentum: Decay = 0.9,
    ) -> None:
        where = "calibration 'fednpc'"
        self.seed = seed
        self.rows = int(in_range(where, "rows", rows, 1))
        self.steps = int(in_range(where, "steps", steps, 0))
        self.lr = in_range(where, "lr", lr, 0, low_allowed=False)
        self.momentum = in_range(where, "momentum", momentum, 0, 1, high_allowed=False)

    def adjust(self, outputs: Outputs) -> Tensor:
        """Outputs -> logits [n, C] of the fitted classifier; the same for the same seed and classifier."""
        if not self.steps:
            return outputs.logits
        noise = self._noise(*outputs.weight.shape)
        head = outputs.weight.double().cpu(), None if outputs.bias is None else outputs.bias.double().cpu()
        weight, bias = fit(head, noise, self.lr, self.momentum)
        logits = outputs.features @ weight.to(outputs.features).T
        return logits if bias is None else logits + bias.to(outputs.features)

    def _noise(self, classes: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch_generator(self.seed, Stream.CALIBRATION)
        for _ in range(self.steps):
            features = torch.randn(self.rows, width, generator=generator)
            yield features.double(), torch.randint(classes, (self.rows,), generator=generator)


def fit(head: Head, batches: Iterable[tuple[Tensor, Tensor]], lr: float, momentum: float) -> Head:
    """One step of SGD with momentum on the mean cross-entropy of each batch, in the head's dtype.

    Args:
        head: where to start; not changed.
        batches: features [M, d] and labels [M] int64.
    """
    weight, bias = head[0].clone(), None if head[1] is None else head[1].clone()
    velocity = torch.zeros_like(weight), torch.zeros(len(weight), dtype=weight.dtype)
    for features, labels in batches:
        logits = features @ weight.T
        slope = (logits if bias is None else logits + bias).softmax(1)
        slope[torch.arange(len(labels)), labels] -= 1
        slope /= len(labels)
        velocity = momentum * velocity[0] + slope.T @ features, momentum * velocity[1] + slope.sum(0)
        weight -= lr * velocity[0]
        if bias is not None:
            bias -= lr * velocity[1]
    return weight, bias
