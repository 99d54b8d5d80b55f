"""Rows that a graph network holds to be least like the labelled ones: CoreGCN.

Caramalau, Bhattarai & Kim, "Sequential Graph Convolutional Network for Active Learning", CVPR 2021. A graph of the
labelled rows and a random part of the pool, edges by the cosine of their features; three graph layers learn which rows
are labelled (binary cross-entropy, the unlabelled side times lambda); then greedy k-centre on the hidden features, the
labelled rows as centres that are there. Numbers as in the federated comparisons' code: hidden 128, dropout .3, Adam
1e-3 with weight decay 5e-4, 200 steps, lambda 1.2, 10,000 rows.

The affinity A = D^-1 (Z Z' - I) + I is applied as Z (Z' h) and never made: the same numbers in n x d memory. Ours:
where features can be negative the cosine is shifted to (1 + cos) / 2, for else a row's edges may sum to 0.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fedimb.registry import register
from fedimb.selection.gradient_embeddings import Factored
from fedimb.selection.prototypes import unit
from fedimb.selection.queries.base import Asked, QueryRule
from fedimb.selection.queries.centres import k_center
from fedimb.training.arguments import in_range
from fedimb.training.optim import Adam


class CosineGraph:
    """Every row tied to every other by the cosine of their features [n, d], rows normalised, and to itself."""

    def __init__(self, features: Tensor) -> None:
        z = unit(features)
        if bool((z < 0).any()):
            z = torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], 1) / 2**0.5
        # |z|^2, which is 0 or 1/2 and not 1 for a row of zeros, is what the row owes to itself.
        self.own = (z * z).sum(1, keepdim=True).float()
        edges = (z @ z.sum(0))[:, None].float() - self.own
        self.z = z.float()
        self.scale = torch.where(edges > 1e-6, 1 / edges, 0.0)

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
    dropout: float = 0.3,
    unlabelled_weight: float = 1.2,
    lr: float = 1e-3,
    weight_decay: float = 5e-4,
) -> Tensor:
    """Train the graph network and return its last hidden layer.

    Args:
        features: [n, d].
        labelled: [n] bool.
        generator: initial weights and dropout.

    Returns:
        [n, width] float32.
    """
    with torch.enable_grad():
        graph = CosineGraph(features)
        spread_input = graph.spread(unit(features).float())
        sizes = [(features.shape[1], width), (width, width), (width, 1)]
        weights = [
            ((2 * torch.rand(size, generator=generator) - 1) / size[1] ** 0.5).requires_grad_() for size in sizes
        ]
        biases = [torch.zeros(size[1], requires_grad=True) for size in sizes]

        def dropped(hidden: Tensor) -> Tensor:
            return hidden * (torch.rand(hidden.shape, generator=generator) >= dropout) / (1 - dropout)

        def last_hidden(drop: Callable[[Tensor], Tensor]) -> Tensor:
            # The input does not change, so its product with the graph is made once.
            hidden = drop((spread_input @ weights[0] + biases[0]).relu())
            return drop((graph.spread(hidden @ weights[1]) + biases[1]).relu())

        parameters = [*weights, *biases]
        optimiser = Adam(parameters, lr, weight_decay)
        for _ in range(steps):
            hidden = last_hidden(dropped)
            score = (graph.spread(hidden @ weights[2]) + biases[2])[:, 0]
            loss = -unlabelled_weight * torch.nn.functional.logsigmoid(-score[~labelled]).mean()
            if labelled.any():
                loss = loss - torch.nn.functional.logsigmoid(score[labelled]).mean()
            optimiser.step(list(torch.autograd.grad(loss, parameters)))
        return last_hidden(lambda hidden: hidden).detach()


@register("query", "gcnal")
class Gcnal(QueryRule):
    """Args:
    subset: rows of the pool in the graph, at least the budget; a larger pool is thinned at random.
    hidden: width of the graph layers.
    steps: of training.

    Raises:
        ConfigError: any of them below 1.
    """

    adaptive = True

    def __init__(self, subset: int = 10_000, hidden: int = 128, steps: int = 200) -> None:
        given = {"subset": subset, "hidden": hidden, "steps": steps}
        checked = {key: int(in_range("query 'gcnal'", key, value, 1)) for key, value in given.items()}
        self.subset, self.hidden, self.steps = checked.values()

    def choose(self, asked: Asked) -> Tensor:
        """See `QueryRule`."""
        size = min(asked.size, max(self.subset, asked.budget))
        part = torch.randperm(asked.size, generator=asked.generator)[:size].sort().values
        features = torch.cat([asked.pool[asked.which].features[part], asked.labelled[asked.which].features])
        labelled = torch.arange(len(features)) >= size
        hidden = hidden_features(features, labelled, asked.generator, width=self.hidden, steps=self.steps)
        first = int(torch.randint(size, (1,), generator=asked.generator))
        return part[k_center(Factored.of(hidden[:size]), asked.budget, Factored.of(hidden[size:]), first)]
