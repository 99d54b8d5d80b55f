"""Checks samples against what the server has: its pretrained classifier and its own real rows.

The rule is FedSSG's reconstructed gate (`fedimb.generation.quality`); no client data is used.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fedimb.data.public import PublicRows
from fedimb.generation.examples import Examples
from fedimb.generation.quality import quality_gate
from fedimb.generation.transport import select_samples
from fedimb.models.base import Classifier
from fedimb.records import Arrays
from fedimb.training.forward import Outputs


class OwnRows(Protocol):
    """The server's own rows and the model: implemented by `fedimb.serverapp.server.Server`."""

    def model(self, weights: Arrays) -> Classifier:
        """The configured model with these weights."""
        ...

    def public(self) -> PublicRows:
        """The server's labelled rows."""
        ...

    def outputs(self, model: Classifier, x: Tensor) -> Outputs:
        """Features [n, d] and logits [n, C] of rows."""
        ...


@dataclass(frozen=True, eq=False)
class ScreeningResult:
    """The samples that passed, and a JSON report of what was dropped and why."""

    kept: Examples
    report: dict[str, object]


def screen_samples(server: OwnRows, weights: Arrays, samples: Examples, rare: tuple[int, ...]) -> ScreeningResult:
    """Drop samples that the server's classifier doubts, or that lie next to one of its rows in feature space.

    Args:
        server: its rows and the model.
        weights: of the classifier pretrained on these rows.
        samples: the pool.
        rare: classes of which the best 70 % also pass.
    """
    model, rows = server.model(weights), server.public()
    made_features, made_logits = server.outputs(model, samples.x)
    real_features, _ = server.outputs(model, rows.x)
    passed = quality_gate(made_logits.softmax(1), made_features, samples.y, real_features, rows.y, rare)
    return ScreeningResult(select_samples(samples, passed.keep), passed.report())
