"""FairFAL: class-fair federated active learning.

Zong & Huang, arXiv 2603.10341 (2026). In each cycle a client (1) trains a local-only model on its labelled rows and
compares what it and the global model say of a class-balanced view of them: d_k = mean_c |pi_g - pi_l| / (pi_g + pi_l),
gamma_k = min pi_g / max pi_g over labelled classes, of which the server takes the mean once, at the first query;
(2) asks the global model for uncertainty if 1 - (d_k + gamma) / 2 > delta, else the local one; (3) gives every pool
row the class of the nearest prototype in the global model's features; (4) splits its budget evenly over those classes,
keeps in each the kappa x quota rows of highest entropy, and picks from them by k-centre on gradient embeddings with
the labelled rows of the class as anchors. Then all clients train again from fresh weights.

The cycle is `fedimb.strategies.active`, the rule `fedimb.selection.queries.fairfal`: equations, evidence, and the
switches for what released code and paper do differently (B2, B5, B6) stand there. Defect B1 of the released code,
where the pictures scored are not the pictures labelled, cannot occur by mistake: both views are one list of rows.
``query_view=mismatched`` brings it about, to measure what it does.
"""

from typing import Any

from flwr.serverapp.strategy import Strategy

from fedimb.data.views import QueryView
from fedimb.registry import register
from fedimb.strategies.active import KCFU, Active, Ask


@register(
    "strategy",
    "fairfal",
    cycles=True,
    prior_view="labelled",
    reveals_counts=True,
    sets_prior=True,
    asks_for_labels=True,
    when=KCFU,
)
class FairFAL(Active):
    """As `Active`, with the rule ``fairfal`` and the adaptive choice of the model asked."""

    name = "fairfal"

    def __init__(
        self,
        inner: Strategy,
        query: dict[str, Any] | None = None,
        which: Ask = "adaptive",
        cycles: int = 5,
        budget: int = 10,
        first: int | None = None,
        restart: bool = True,
        share_prototypes: bool = False,
        oracle: dict[str, Any] | None = None,
        local_epochs: int = 50,
        local_stop: float = 0.99,
        query_view: QueryView = "train",
        kcfu: bool = False,
    ) -> None:
        chosen = query or {"name": "fairfal"}
        super().__init__(
            inner, chosen, which, cycles, budget, first, restart, share_prototypes, oracle, local_epochs, local_stop,
            query_view, kcfu,
        )  # fmt: skip
