"""Rows on which the models' neighbourhoods disagree: inconsistency between global, own and local models.

IFAL (IJCAI 2025), as its released code has it. A model's view of a row is a vote: every labelled row (its label) and
every other pool row (the model's prediction) votes for its nearest pool rows by cosine in that model's features;
counts + 1, normalised. With D = distance between two models' votes, Dgl = global to local, Dul = updated to local:

    U1 = max(Dgl / Dul, Dul / Dgl) (Dul + Dgl),   U2 = D(votes of updated, its softmax),   score = U1 U2

Rows above Otsu's threshold of the score are clustered (k = b) and the nearest to each centre is chosen; with too few
rows, the threshold of U1 alone; then the top scores.

The local model learns from a fresh start by 0.1 cross-entropy + 0.9 distillation from the global model (T = 4, a tenth
of the learning rate, at most 500 epochs, patience 5: `Distillation`); updated are the client's own weights after its
last round.

Not the paper's, read this before comparing: the teacher is shown the labelled rows alone; where a client has no updated
weights (it missed the last round), the local model takes their part and U1 = Dgl. At most ``voters`` rows vote,
labelled ones first, and a row votes for no more than a tenth of the pool (250 of 250 would be everyone). Survivors are
clustered in the global model's features. Kept as it is: the code calls a one-dimensional Wasserstein distance with
probability *vectors as samples*, so D is the mean difference of the sorted probabilities and does not see which class
is which.
"""

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.prototypes import unit
from fedimb.selection.queries.base import Asked, Distillation, Model, QueryRule
from fedimb.selection.queries.clusters import best_of_each, k_means, topped_up
from fedimb.selection.uncertainty import probabilities

_CELLS = 8_000_000  # similarities at a time, 32 MB of float32
_TINY = 1e-12


def sorted_distance(p: Tensor, q: Tensor) -> Tensor:
    """Wasserstein-1 of two rows' entries taken as samples: [n, C] twice -> [n]. Blind to the order of the classes."""
    return (p.sort(1).values - q.sort(1).values).abs().mean(1)


def inconsistency(one: Tensor, two: Tensor) -> Tensor:
    """U1: max(one / two, two / one) (one + two), [n] twice -> [n]; 0 where both are, never infinite."""
    low, high = torch.minimum(one, two), torch.maximum(one, two)
    return high / low.clamp_min(_TINY) * (low + high)


def otsu_threshold(values: Tensor) -> float:
    """Otsu 1979: the value that parts ``values`` [n >= 1] with the largest variance between the parts.

    Rows above it are the upper part; with all values equal, that value (so none is above).
    """
    ordered = values.double().sort().values
    n = len(ordered)
    below = torch.arange(1, n, dtype=torch.float64)
    sums = ordered.cumsum(0)
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (n - below)
    between = below * (n - below) * (high - low) ** 2
    between[ordered[1:] == ordered[:-1]] = -1.0  # equal values cannot be parted
    if n == 1 or bool(between.max() <= 0):
        return float(ordered[-1])
    return float(ordered[int(between.argmax())])


@register("query", "ifal")
class Ifal(QueryRule):
    """Args:
    neighbours: pool rows each voter votes for.
    voters: rows that vote, at most.
    passes: of Lloyd's algorithm, at most.
    epochs: of the distilled local model, at most.

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

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        n = asked.size
        mixed = torch.randperm(len(asked.labels), generator=asked.generator) + n
        voters = torch.cat([mixed, torch.randperm(n, generator=asked.generator)])[: self.voters]
        own: Model = "updated" if "updated" in asked.pool else "local"
        votes = {model: self._votes(asked, model, voters) for model in self.models | {own}}
        apart = sorted_distance(votes["global"], votes["local"])
        if own == "updated":
            other = sorted_distance(votes[own], votes["local"])
            apart = inconsistency(apart, other)
        score = apart * sorted_distance(votes[own], probabilities(asked.pool[own].logits))
        survivors = (score > otsu_threshold(score)).nonzero().flatten()
        if len(survivors) < asked.budget:
            survivors = (apart > otsu_threshold(apart)).nonzero().flatten()
        if len(survivors) < asked.budget:
            survivors = survivors[:0]
        return topped_up(self._one_per_cluster(asked, survivors), score, asked.budget)

    def _one_per_cluster(self, asked: Asked, rows: Tensor) -> Tensor:
        if len(rows) == 0:
            return rows
        features = asked.pool["global"].features[rows].float()
        cluster, centres = k_means(features, asked.budget, asked.generator, self.passes)
        return rows[best_of_each(cluster, -(features - centres[cluster]).norm(dim=1))]

    def _votes(self, asked: Asked, model: Model, voters: Tensor) -> Tensor:
        """Each pool row's share of votes for each class: [n, C] float64. Voters at n and above are labelled rows."""
        n, n_classes = asked.size, asked.n_classes
        pool = unit(asked.pool[model].features).float()
        rows = torch.cat([pool, unit(asked.labelled[model].features).float()])
        says = torch.cat([asked.pool[model].logits.argmax(1), asked.labels])
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
