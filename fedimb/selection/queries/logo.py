"""Clusters under the local model, and in each the row the global model is least sure of.

LoGo: Kim et al., "Re-thinking Federated Active Learning based on Inter-class Diversity", CVPR 2023. Macro step:
k-means with k = b on the local-only model's gradient embedding of its own class, phi (1 - p_max). Micro step: the
highest entropy under the global model in each cluster. Clusters that collapse are topped up by entropy; the passes of
k-means are limited (ours).
"""

from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.queries.base import Asked, QueryRule
from fedimb.selection.queries.clusters import best_of_each, k_means, topped_up
from fedimb.selection.uncertainty import least_confidence, normalised_entropy


@register("query", "logo")
class LoGo(QueryRule):
    """Args:
    passes: of Lloyd's algorithm, at most.

    Raises:
        ConfigError: fewer than one pass.
    """

    models = frozenset({"global", "local"})

    def __init__(self, passes: int = 10) -> None:
        self.passes = int(in_range("query 'logo'", "passes", passes, 1))

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        local = asked.pool["local"]
        embedding = local.features.float() * least_confidence(local.logits)[:, None].float()
        cluster, _ = k_means(embedding, asked.budget, asked.generator, self.passes)
        entropy = normalised_entropy(asked.pool["global"].logits)
        return topped_up(best_of_each(cluster, entropy), entropy, asked.budget)
