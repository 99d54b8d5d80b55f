"""GraNd of the last layer: the length of a row's gradient with respect to the head's weights and bias.

Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021. The gradient of the cross-entropy is
(p - onehot) outer (f, 1), so its length is || p - onehot || sqrt(|| f ||^2 + 1). Unlike the paper: the mean is over the
epochs of one warm-up instead of over ten runs, with the final features, since those of earlier epochs are not stored.
"""

from typing import Literal

from torch import Tensor

from fedimb.registry import register
from fedimb.selection.coresets.base import Candidates, ScoreRule
from fedimb.selection.coresets.el2n import error_length


@register("coreset", "grand")
class GraNd(ScoreRule):
    """Keeps the largest gradients.

    Args:
        probabilities: ``history``, the mean over the warm-up's epochs, or ``final``, those of the model's logits.
    """

    def __init__(self, probabilities: Literal["history", "final"] = "history") -> None:
        self.final = probabilities == "final"
        self.needs = frozenset({"features", "logits" if self.final else "history"})

    def score(self, candidates: Candidates, rows: Tensor) -> Tensor:
        """[len(rows)] float32."""
        if self.final:
            probabilities = candidates.given("logits")[rows].softmax(1)
        else:
            probabilities = candidates.given("history")[:, rows]
        features = candidates.given("features")[rows]
        return error_length(probabilities, candidates.labels[rows]) * ((features * features).sum(1) + 1).sqrt()
