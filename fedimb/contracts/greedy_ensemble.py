"""What the two sides of the greedy ensemble agree on: settings, and each site's whole model, once at the end."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from fedimb.contracts.base import Contract, Record, Values
from fedimb.contracts.settings import Settings
from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, PositiveCount

MODELS = "greedy_ensemble_model"
"""Query: the model that this client has trained alone."""
MODEL = "x.site_model"
"""The reply to it: the trained parameters by name; absent from a client that has never trained."""
ANNOTATED = "x.annotated"
"""Sent with every train message if clients annotate different classes: [K, C] uint8."""


@dataclass(frozen=True)
class GreedyEnsembleSettings(Settings):
    """Settings of the greedy ensemble.

    Attributes:
        picks: how often a model is added, at most; the best ensemble on the way is kept.
        score: what is made best on the server's rows: macro_recall, macro_f1 or log_loss.
        penalty: times the sum of the squared weights, off the score; it favours many sites.
    """

    method: ClassVar[str] = "greedy_ensemble"

    picks: PositiveCount = 50
    score: Literal["macro_recall", "macro_f1", "log_loss"] = "macro_recall"
    penalty: NonNegative = 0.0


GREEDY_ENSEMBLE = Contract(
    name="greedy_ensemble",
    queries={
        MODELS: (
            Record(
                MODEL,
                "arrays",
                "all weights of this site's model, which did not leave it before",
                "model",
                dtypes=("float32",),
                values={"*": Values()},
                optional=True,
            ),
        )
    },
    often={MODELS: "once, after training"},
    most={MODELS: 1},
    replaces=1,
)
register("contract", "greedy_ensemble")(GREEDY_ENSEMBLE)
