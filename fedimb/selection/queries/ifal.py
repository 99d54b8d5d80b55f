"""Rows on which the models' neighbourhoods disagree: inconsistency between global, updated and local models.

IFAL (IJCAI 2025), following its released code. A model's view of a row is a vote: every labelled row (its label) and
every other pool row (the model's prediction) votes for its nearest pool rows by cosine in that model's features;
counts + 1, normalised. With D = distance between two models' votes, Dgl = global to local, Dul = updated to local:

    U1 = max(Dgl / Dul, Dul / Dgl) (Dul + Dgl),   U2 = D(votes of updated, its softmax),   score = U1 U2

Rows above Otsu's threshold of the score are clustered (k = b) and the nearest to each centre is chosen; with too few
rows, the threshold of U1 alone; then the top scores.

The local model learns from a fresh start by 0.1 cross-entropy + 0.9 distillation from the global model (T = 4, a tenth
of the learning rate, at most 500 epochs, patience 5: `Distillation`); "updated" is the client's own model after its
last round.

Differences from the paper that matter for comparisons: the teacher sees only the labelled rows; if a client has no
updated model (it missed the last round), the local model replaces it and U1 = Dgl. At most ``voters`` rows vote,
labelled ones first, and a row votes for at most a tenth of the pool (250 of 250 would be everyone). Survivors are
clustered in the global model's features. Kept from the code: it calls a one-dimensional Wasserstein distance with
probability *vectors as samples*, so D is the mean difference of the sorted probabilities and ignores which class is
which.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.prototypes import unit
from fedimb.selection.queries.base import Distillation, Model, QueryInput, QueryRule
from fedimb.selection.queries.clusters import best_of_each, k_means, topped_up
from fedimb.selection.uncertainty import probabilities

_CELLS = 8_000_000  # similarities per block, 32 MB of float32
_TINY = 1e-12


def sorted_distance(p: Tensor, q: Tensor) -> Tensor:
    """Wasserstein-1 of two rows' entries taken as samples: [n, C] twice -> [n]. Ignores the order of the classes."""
    return (p.sort(1).values - q.sort(1).values).abs().mean(1)


def inconsistency(one: Tensor, two: Tensor) -> Tensor:
    """U1: max(one / two, two / one) (one + two), [n] twice -> [n]; 0 if both are 0, never infinite."""
    low, high = torch.minimum(one, two), torch.maximum(one, two)
    return high / low.clamp_min(_TINY) * (low + high)


def otsu_threshold(values: Tensor) -> float:
    """Otsu 1979: the value that splits ``values`` [n >= 1] with the largest variance between the two groups.

    Rows above it form the upper group; if all values are equal, that value (so none is above).
    """
    ordered = values.double().sort().values
    n = len(ordered)
    below = torch.arange(1, n, dtype=torch.float64)
    sums = ordered.cumsum(0)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (n - below)
    between = below * (n - below) * (high - low) ** 2
    between[ordered[1:] == ordered[:-1]] = -1.0  # equal values cannot be separated
    if n == 1 or bool(between.max() <= 0):
        return float(ordered[-1])
    return float(ordered[int(between.argmax())])


@register("query", "ifal")
class Ifal(QueryRule):
    """Rows on which the neighbourhoods of the global, updated and local models disagree.

    Args:
        neighbours: pool rows that each voter votes for.
        voters: maximum number of rows that vote.
        passes: maximum number of passes of Lloyd's algorithm.
        epochs: maximum number of epochs of the distilled local model.

    Raises:
        ConfigError: any of them below 1.
    """

    models = frozenset({"global", "local"})
    optional = frozenset({"updated"})

    def __init__(self, neighbours: int = 250, voters: int = 2000, passes: int = 10, epochs: int = 500) -> None:
        given = {"neighbours": neighbours, "voters": voters, "passes": passes, "epochs": epochs}
        checked = {key: int(in_range("query 'ifal'", key, value, 1)) for key, value in given.items()}
        self.neighbours, self.voters, self.passes, epochs = checked.values()
        self.distilled = Distillation(epochs)

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        n = query.size
        mixed = torch.randperm(len(query.labels), generator=query.generator) + n
        voters = torch.cat([mixed, torch.randperm(n, generator=query.generator)])[: self.voters]
        own: Model = "updated" if "updated" in query.pool else "local"
        votes = {model: self._votes(query, model, voters) for model in self.models | {own}}
        apart = sorted_distance(votes["global"], votes["local"])
        if own == "updated":
            other = sorted_distance(votes[own], votes["local"])
            apart = inconsistency(apart, other)
        score = apart * sorted_distance(votes[own], probabilities(query.pool[own].logits))
        survivors = (score > otsu_threshold(score)).nonzero().flatten()
        if len(survivors) < query.budget:
            survivors = (apart > otsu_threshold(apart)).nonzero().flatten()
        if len(survivors) < query.budget:
            survivors = survivors[:0]
        return topped_up(self._one_per_cluster(query, survivors), score, query.budget)

    def _one_per_cluster(self, query: QueryInput, rows: Tensor) -> Tensor:
        if len(rows) == 0:
            return rows
        features = query.pool["global"].features[rows].float()
        cluster, centres = k_means(features, query.budget, query.generator, self.passes)
        return rows[best_of_each(cluster, -(features - centres[cluster]).norm(dim=1))]

    def _votes(self, query: QueryInput, model: Model, voters: Tensor) -> Tensor:
        """Each pool row's share of votes for each class: [n, C] float64. Voters with index n and above are labelled
        rows."""
        n, n_classes = query.size, query.n_classes
        pool = unit(query.pool[model].features).float()
        rows = torch.cat([pool, unit(query.labelled[model].features).float()])
        says = torch.cat([query.pool[model].logits.argmax(1), query.labels])
        count = max(1, min(self.neighbours, n // 10))
        votes = torch.ones(n * n_classes, dtype=torch.float64)
        for block in voters.split(max(1, _CELLS // n)):
            similar = rows[block] @ pool.T
            inside = (block < n).nonzero().flatten()
            similar[inside, block[inside]] = -torch.inf
            near = similar.topk(min(count, n), dim=1).indices
            votes += (near * n_classes + says[block][:, None]).flatten().bincount(minlength=n * n_classes)
        votes = votes.reshape(n, n_classes)
        return votes / votes.sum(1, keepdim=True)
