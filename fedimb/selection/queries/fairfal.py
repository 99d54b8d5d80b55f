"""FairFAL's choice: equal shares of pseudo-classes, in each the unsure rows, of those the ones that lie apart.

Zong & Huang, "FairFAL", arXiv 2603.10341 (2026), its steps 3 and 4; steps 1 and 2, which pick the model whose
uncertainty counts, are `fedimb.selection.queries.local_priors`, and the caller passes their answer as ``asked.which``.

1. y^ = the class of the nearest prototype, in the global model's features (`prototypes`).
2. A quota for each class (`quota`).
3. In each bucket the floor(kappa x quota) rows of highest normalised entropy under ``asked.which``.
4. Of these the quota by greedy k-centre on gradient embeddings g = concat_c (1{c = y~} - p_c) phi, with the class's
labelled
   rows (their true label as y~) as anchors; without anchors the unsurest row comes first.

As third-party notes of the paper and the released code have it; where these two differ there is a switch. Ours: the
policies for what the quota leaves over but ``largest``, and shared prototypes (``asked.prototypes``).
"""

from typing import Literal

from torch import Tensor

from fedimb.errors import ConfigError, nearest
from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.gradient_embeddings import gradient_embeddings
from fedimb.selection.queries.base import Asked, Model, Which
from fedimb.selection.queries.centres import k_center
from fedimb.selection.queries.prototype_quota import PrototypeQuota, check_leftover
from fedimb.selection.quota import Leftover
from fedimb.selection.uncertainty import highest, normalised_entropy


@register("query", "fairfal")
class FairFAL(PrototypeQuota):
    """Args:
    kappa: candidates per row of the quota, at least 1 (1: no second stage).
    delta: threshold of the switch between the models. The caller reads it: the rule only sees ``asked.which``.
    embedding_model: whose probabilities the gradient embeddings take: ``paper``, always the global model's; ``code``,
        the released code's, the local model's where ``asked.gamma`` >= .5. The features are the global model's.
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
        """See `QueryRule`. By the released code the local model may be wanted whatever is asked."""
        return super().reads(which) | (frozenset({"local"}) if self.embedding_model == "code" else frozenset())

    def _residuals_of(self, asked: Asked) -> Which:
        if self.embedding_model == "paper":
            return "global"
        if asked.gamma is None:
            raise ValueError("query 'fairfal' with embedding_model=code needs gamma; give it, or embedding_model=paper")
        return "global" if asked.gamma < 0.5 else "local"

    def pick(self, asked: Asked, label: int, rows: Tensor, count: int) -> Tensor:
        """See `PrototypeQuota`."""
        entropy = normalised_entropy(asked.pool[asked.which].logits[rows])
        candidates = rows[highest(entropy, int(self.kappa * count))]
        model = self._residuals_of(asked)
        embedded = gradient_embeddings(asked.pool["global"].features[candidates], asked.pool[model].logits[candidates])
        same = asked.labels == label
        anchors = gradient_embeddings(
            asked.labelled["global"].features[same], asked.labelled[model].logits[same], asked.labels[same]
        )
        return candidates[k_center(embedded, count, anchors, first=0)]
