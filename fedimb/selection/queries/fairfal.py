"""FairFAL's selection: equal shares of pseudo-classes, in each the uncertain rows, of these the diverse ones.

Zong & Huang, "FairFAL", arXiv 2603.10341 (2026), steps 3 and 4; steps 1 and 2, which choose the model for the
uncertainty, are in `fedimb.selection.queries.local_priors`, and the caller passes the result as ``query.which``.

1. y^ = the class of the nearest prototype, in the global model's features (`prototypes`).
2. A quota for each class (`quota`).
3. In each bucket the floor(kappa x quota) rows of highest normalised entropy under ``query.which``.
4. Of these the quota by greedy k-centre on gradient embeddings g = concat_c (1{c = y~} - p_c) phi, with the class's
   labelled rows (their true label as y~) as anchors; without anchors the most uncertain row comes first.

Follows third-party notes on the paper and the released code; where these differ there is a setting. Additions: the
leftover policies other than ``largest``, and shared prototypes (``query.prototypes``).
"""

from typing import Literal

from torch import Tensor

from fedimb.errors import ConfigError, nearest
from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.gradient_embeddings import gradient_embeddings
from fedimb.selection.queries.base import Model, QueryInput, Which
from fedimb.selection.queries.centres import k_center
from fedimb.selection.queries.prototype_quota import PrototypeQuota, check_leftover
from fedimb.selection.quota import Leftover
from fedimb.selection.uncertainty import highest, normalised_entropy


@register("query", "fairfal")
class FairFAL(PrototypeQuota):
    """Equal shares of pseudo-classes; in each the uncertain rows, and of these the diverse ones.

    Args:
        kappa: candidates per row of the quota, at least 1 (1: no second stage).
        delta: threshold of the switch between the models. The caller reads it: the rule only sees ``query.which``.
        embedding_model: which model's probabilities the gradient embeddings use: ``paper``, always the global model's;
            ``code``, as in the released code, the local model's if ``query.gamma`` >= .5. The features are the global
            model's.
        leftover: see `fedimb.selection.quota.class_quota`.

    Raises:
        ConfigError: kappa below 1, delta outside [0, 1], or no such model or policy.
    """

    adaptive = True

    def __init__(
        self,
        kappa: float = 4.0,
        delta: float = 0.75,
        embedding_model: Literal["paper", "code"] = "paper",
        leftover: Leftover = "largest",
    ) -> None:
        self.kappa = in_range("query 'fairfal'", "kappa", kappa, 1)
        self.delta = in_range("query 'fairfal'", "delta", delta, 0, 1)
        if embedding_model not in ("paper", "code"):
            hint = nearest(embedding_model, ("paper", "code"))
            raise ConfigError(f"query 'fairfal': embedding_model={embedding_model!r}.{hint}")
        self.embedding_model = embedding_model
        self.leftover = check_leftover("fairfal", leftover)

    def reads(self, which: Which) -> frozenset[Model]:
        """See `QueryRule`. With ``embedding_model: code`` the local model may be needed for either value of
        ``which``."""
        return super().reads(which) | (frozenset({"local"}) if self.embedding_model == "code" else frozenset())

    def _residuals_of(self, query: QueryInput) -> Which:
        if self.embedding_model == "paper":
            return "global"
        if query.gamma is None:
            raise ValueError("query 'fairfal' with embedding_model=code needs gamma; give it, or embedding_model=paper")
        return "global" if query.gamma < 0.5 else "local"

    def pick(self, query: QueryInput, label: int, rows: Tensor, count: int) -> Tensor:
        """See `PrototypeQuota`."""
        entropy = normalised_entropy(query.pool[query.which].logits[rows])
        candidates = rows[highest(entropy, int(self.kappa * count))]
        model = self._residuals_of(query)
        embedded = gradient_embeddings(query.pool["global"].features[candidates], query.pool[model].logits[candidates])
        same = query.labels == label
        anchors = gradient_embeddings(
            query.labelled["global"].features[same], query.labelled[model].logits[same], query.labels[same]
        )
        return candidates[k_center(embedded, count, anchors, first=0)]
