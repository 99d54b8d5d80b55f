"""Rows that a graph network considers least similar to the labelled ones: CoreGCN.

Caramalau, Bhattarai & Kim, "Sequential Graph Convolutional Network for Active Learning", CVPR 2021. A graph of the
labelled rows and a random subset of the pool, with edges weighted by the cosine of their features; three graph layers
learn which rows are labelled (binary cross-entropy, the unlabelled side times lambda); then greedy k-centre on the
hidden features, with the labelled rows as existing centres. Values as in the code of the federated comparisons: hidden
128, dropout .3, Adam 1e-3 with weight decay 5e-4, 200 steps, lambda 1.2, 10,000 rows.

The affinity A = D^-1 (Z Z' - I) + I is applied as Z (Z' h) and never built: the same numbers in n x d memory. Unlike
the paper: if features can be negative, the cosine is shifted to (1 + cos) / 2, since otherwise a row's edges may sum to
0. And each step uses ``batch`` newly drawn rows, with the edges between them, as in Chen, Ma & Xiao, "FastGCN", ICLR
2018: a row's neighbourhood is a mean over rows, which a sample estimates. The paper uses the whole graph in every step:
``batch`` null. The hidden features are computed on the whole graph in both cases.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.registry.arguments import in_range
from fedimb.selection.gradient_embeddings import Factored
from fedimb.selection.prototypes import unit
from fedimb.selection.queries.base import QueryInput, QueryRule
from fedimb.selection.queries.centres import k_center
from fedimb.training.optim import Adam


class CosineGraph:
    """A graph with an edge between any two rows, weighted by the cosine of their features [n, d], and self-loops."""

    def __init__(self, features: Tensor) -> None:
        z = unit(features)
        if bool((z < 0).any()):
            z = torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], 1) / 2**0.5
        # |z|^2 is the row's weight on itself: 0 or 1/2, not 1, for a row of zeros.
        self.own = (z * z).sum(1, keepdim=True).float()
        self.z = z.float()
        self._scale_edges(z.sum(0))

    def _scale_edges(self, total: Tensor) -> None:
        edges = (self.z.to(total.dtype) @ total)[:, None].float() - self.own
        self.scale = torch.where(edges > 1e-6, 1 / edges, 0.0)

    def part(self, rows: Tensor) -> "CosineGraph":
        """The subgraph of these rows, int64 positions: the edges between them, again summing to 1 for each row."""
        part = CosineGraph.__new__(CosineGraph)
        part.z, part.own = self.z[rows], self.own[rows]
        part._scale_edges(part.z.sum(0))
        return part

    def spread(self, hidden: Tensor) -> Tensor:
        """A h: [n, k] -> [n, k]."""
        return (self.z @ (self.z.T @ hidden) - self.own * hidden) * self.scale + hidden


def hidden_features(
    features: Tensor,
    labelled: Tensor,
    generator: torch.Generator,
    *,
    width: int,
    steps: int,
    batch: int | None = None,
    dropout: float = 0.3,
    unlabelled_weight: float = 1.2,
    lr: float = 1e-3,
    weight_decay: float = 5e-4,
) -> Tensor:
    """Train the graph network and return its last hidden layer.

    Args:
        features: [n, d].
        labelled: [n] bool.
        generator: initial weights, the rows of a step, and dropout.
        batch: rows per step, with labelled rows in proportion but at least one; None: all.

    Returns:
        [n, width] float32, of the whole graph.
    """
    with torch.enable_grad():
        graph = CosineGraph(features)
        spread_input = graph.spread(unit(features).float())  # constant: its product with the graph is computed once
        sizes = [(features.shape[1], width), (width, width), (width, 1)]
        weights = [
            ((2 * torch.rand(size, generator=generator) - 1) / size[1] ** 0.5).requires_grad_() for size in sizes
        ]
        biases = [torch.zeros(size[1], requires_grad=True) for size in sizes]
        parameters = [*weights, *biases]
        optimiser = Adam(parameters, lr, weight_decay)

        def dropped(hidden: Tensor) -> Tensor:
            return hidden * (torch.rand(hidden.shape, generator=generator) >= dropout) / (1 - dropout)

        def last_hidden(part: CosineGraph, inputs: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
            hidden = drop((inputs @ weights[0] + biases[0]).relu())
            return drop((part.spread(hidden @ weights[1]) + biases[1]).relu())

        part, inputs, known = graph, spread_input, labelled
        for _ in range(steps):
            if batch is not None and batch < len(features):
                rows = step_rows(labelled, batch, generator)
                part, inputs, known = graph.part(rows), spread_input[rows], labelled[rows]
            hidden = last_hidden(part, inputs, dropped)
            score = (part.spread(hidden @ weights[2]) + biases[2])[:, 0]
            loss = -unlabelled_weight * torch.nn.functional.logsigmoid(-score[~known]).mean()
            if known.any():
                loss = loss - torch.nn.functional.logsigmoid(score[known]).mean()
            optimiser.step(list(torch.autograd.grad(loss, parameters)))
        return last_hidden(graph, spread_input, lambda hidden: hidden).detach()


def step_rows(labelled: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """``batch`` of the rows [n] bool, distinct int64 positions: both sides in proportion, at least one row of each."""
    sides = [labelled.nonzero().flatten(), (~labelled).nonzero().flatten()]
    n, held = len(labelled), len(sides[0])
    known = min(max(round(batch * held / n), min(1, held)), batch - min(1, n - held))
    return torch.cat(
        [
            side[torch.randperm(len(side), generator=generator)[:count]]
            for side, count in zip(sides, (known, batch - known), strict=True)
        ]
    )


@register("query", "gcnal")
class Gcnal(QueryRule):
    """Rows that a graph network considers least similar to the labelled ones (CoreGCN).

    Args:
        subset: rows of the pool in the graph, at least the budget; a larger pool is sampled at random.
        hidden: width of the graph layers.
        steps: training steps.
        batch: rows of the graph per step; null: all, as in the paper.

    Raises:
        ConfigError: any of them below 1, or a batch below 2.
    """

    adaptive = True

    def __init__(self, subset: int = 10_000, hidden: int = 128, steps: int = 200, batch: int | None = 256) -> None:
        given = {"subset": subset, "hidden": hidden, "steps": steps}
        checked = {key: int(in_range("query 'gcnal'", key, value, 1)) for key, value in given.items()}
        self.subset, self.hidden, self.steps = checked.values()
        self.batch = None if batch is None else int(in_range("query 'gcnal'", "batch", batch, 2))

    def choose(self, query: QueryInput) -> Tensor:
        """See `QueryRule`."""
        size = min(query.size, max(self.subset, query.budget))
        part = torch.randperm(query.size, generator=query.generator)[:size].sort().values
        features = torch.cat([query.pool[query.which].features[part], query.labelled[query.which].features])
        labelled = torch.arange(len(features)) >= size
        hidden = hidden_features(
            features, labelled, query.generator, width=self.hidden, steps=self.steps, batch=self.batch
        )
        first = int(torch.randint(size, (1,), generator=query.generator))
        return part[k_center(Factored.of(hidden[:size]), query.budget, Factored.of(hidden[size:]), first)]
