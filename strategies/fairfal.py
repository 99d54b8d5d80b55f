"""FairFAL: class-fair federated active learning.

Zong & Huang, arXiv 2603.10341 (2026). In each cycle a client (1) trains a local-only model on its labelled rows and
compares its predictions and the global model's on a class-balanced view of them: d_k = mean_c |pi_g - pi_l| / (pi_g +
pi_l), gamma_k = min pi_g / max pi_g over labelled classes, of which the server takes the mean once, at the first query;
(2) takes uncertainty from the global model if 1 - (d_k + gamma) / 2 > delta, else the local one; (3) assigns every pool
row the class of the nearest prototype in the global model's features; (4) splits its budget evenly over those classes,
keeps the kappa x quota rows of highest entropy in each, and picks from them by k-centre on gradient embeddings with
the labelled rows of the class as anchors. Then all clients train again from fresh weights.

The cycle is `fedimb.strategies.active`, the rule `fedimb.selection.queries.fairfal`: it documents the equations, the
evidence, and the options for what the released code and the paper do differently (B2, B5, B6). Defect B1 of the
released code, where the images scored are not the images labelled, cannot occur by mistake, because both views are one
list of rows. ``query_view=mismatched`` reproduces it, to measure its effect.
"""

from flwr.serverapp.strategy import Strategy

from fedimb.contracts.fairfal import FairFALSettings
from fedimb.registry import register
from fedimb.strategies.active import KCFU, Active


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
    """FairFAL: class-fair federated active learning; `Active` with FairFAL's rule and adaptive choice of the model.

    Args:
        inner: the aggregator or method trained in each cycle.
        settings: a `FairFALSettings`; or give its fields by name: ``FairFAL(FedAvg(), cycles=2)``.
    """

    name = "fairfal"

    def __init__(self, inner: Strategy, settings: FairFALSettings | None = None, **fields: object) -> None:
        super().__init__(inner, FairFALSettings.of(settings, fields))
