"""Post-hoc calibration: a pure function of one forward pass, so that several can be scored on one checkpoint."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """One forward pass over n rows.

    Attributes:
        features: [n, d] float32, penultimate.
        logits: [n, C] float32.
        weight: head weight [C, d] float32.
        bias: head bias [C] float32, or None.
        counts: class counts [C] from which the prior is computed, or None if the run has none.
    """

    features: Tensor
    logits: Tensor
    weight: Tensor
    bias: Tensor | None
    counts: np.ndarray | None


class Calibration:
    """Base class: `adjust` returns the logits whose argmax is the prediction."""

    def adjust(self, outputs: Outputs) -> Tensor:
        """Outputs -> logits [n, C] float32."""
        raise NotImplementedError(f"{type(self).__name__} must implement adjust()")
