"""Clusters under the local model, and in each the row with the highest uncertainty of the global model.

LoGo: Kim et al., "Re-thinking Federated Active Learning based on Inter-class Diversity", CVPR 2023. Macro step:
k-means with k = b on the local-only model's gradient embedding of its own class, phi (1 - p_max). Micro step: the
highest entropy under the global model in each cluster. If clusters collapse, the remaining rows are chosen by entropy;
the number of k-means passes is limited.
"""

from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.queries.clusters import best_of_each, k_means, topped_up
from fedimb.selection.uncertainty import least_confidence, normalised_entropy


@register("query", "logo")
class LoGo(QueryRule):
    """Clusters under the local model; in each the row with the highest entropy of the global model.

    Args:
        passes: maximum number of passes of Lloyd's algorithm.

    Raises:
        ConfigError: fewer than one pass.
    """

    models = frozenset({"global", "local"})

    def __init__(self, passes: int = 10) -> None:
        self.passes = int(in_range("query 'logo'", "passes", passes, 1))

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        local = query.pool["local"]
        embedding = local.features.float() * least_confidence(local.logits)[:, None].float()
        cluster, _ = k_means(embedding, query.budget, query.generator, self.passes)
        entropy = normalised_entropy(query.pool["global"].logits)
        return topped_up(best_of_each(cluster, entropy), entropy, query.budget)
