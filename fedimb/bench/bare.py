"""The same work without the platform: federated averaging as a careful engineer would write it by hand in torch.

Same clients, cohorts, initial weights and batch order as the platform, hence the same final weights (within 1e-5,
tested); everything else is left out: no Flower, no records, no run folder, no checks. One resident model, weights
copied in place, index batches on resident tensors, SGD by hand, the weighted mean summed in float64.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedimb.bench.noop import NAME as NOOP
from fedimb.config.schema import RunConfig
from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare
from fedimb.data.views import to_tensors
from fedimb.errors import ConfigError
from fedimb.models.base import buffers_of
from fedimb.run.parts import build_model
from fedimb.run.roster import Roster
from fedimb.seeds import Stream, torch_generator

_TEST_ROWS = 256


@dataclass
class BareResult:
    """What a bare run did.

    Attributes:
        ends: epoch seconds at which each round ended.
        rows: rows trained on in each round, epochs counted.
        macro_recall: of the final weights on the test set, over the classes it holds.
        weights: final weights by parameter name.
    """

    ends: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    macro_recall: float = math.nan
    weights: dict[str, Tensor] = field(default_factory=dict)


def refuse(config: RunConfig) -> None:
    """Raise ConfigError unless the configuration is plain federated averaging, which is all that is done here."""
    plain = {
        "strategy": list(config.strategy) in (["plain"], [NOOP]),
        "aggregator": config.aggregator["name"] == "fedavg",
        "loss": config.loss["name"] == "ce",
        "sampler": config.sampler["name"] == "shuffle",
        "local": config.local.optimizer == "sgd" and not config.local.augmentation,
        "clients": config.clients.dropout == config.clients.slow == 0,
        "data.validation": config.data.get("validation", 0.0) == 0,
    }
    if wrong := [name for name, fits in plain.items() if not fits]:
        raise ConfigError(f"the bare program does plain FedAvg with SGD and cross-entropy alone: {wrong[0]} is other")


class BareClients:
    """Every client's rows and one model, in one process.

    Args:
        config: see `refuse`.
        federation: its clients.
    """

    def __init__(self, config: RunConfig, federation: Federation) -> None:
        refuse(config)
        self.model = build_model(config, federation.n_classes, federation.input_shape)
        if buffers_of(self.model):
            raise ConfigError("the bare program knows no BatchNorm: use model.norm=group")
        self.model.train()
        self.parameters: list[Tensor] = list(self.model.parameters())
        self.seed, self.local = config.seed, config.local
        self.trains = NOOP not in config.strategy
        sizes = federation.train_sizes
        self.data = {k: federation.client(k).tensors("train") for k in range(len(sizes)) if sizes[k]}

    def train(self, client: int, server_round: int, weights: Sequence[Tensor]) -> int:
        """Train the model from ``weights``; it holds the client's afterwards. Returns the client's rows."""
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, list(weights))
        x, y = self.data[client]
        if not self.trains:
            return len(y)
        generator = torch_generator(self.seed, Stream.TRAIN, server_round, client)
        velocity: list[Tensor] | None = None
        for _ in range(self.local.epochs):
            for rows in torch.randperm(len(y), generator=generator).split(self.local.batch_size):
                loss = cross_entropy(self.model(x[rows]), y[rows])
                velocity = self._step(list(torch.autograd.grad(loss, self.parameters)), velocity)
        return len(y)

    @torch.no_grad()
    def _step(self, gradients: list[Tensor], velocity: list[Tensor] | None) -> list[Tensor] | None:
        local = self.local
        if local.weight_decay:
            torch._foreach_add_(gradients, self.parameters, alpha=local.weight_decay)
        if local.momentum:
            if velocity is None:
                velocity = gradients
            else:
                torch._foreach_mul_(velocity, local.momentum)
                torch._foreach_add_(velocity, gradients)
            gradients = velocity
        torch._foreach_add_(self.parameters, gradients, alpha=-local.lr)
        return velocity

    @torch.no_grad()
    def train_all(self, cohort: Sequence[int], server_round: int, weights: Sequence[Tensor], sums: list[Tensor]) -> int:
        """Train clients one after another and add rows x weights to ``sums`` (float64); returns all their rows."""
        total = 0
        for client in cohort:
            with torch.enable_grad():
                rows = self.train(client, server_round, weights)
            for summed, parameter in zip(sums, self.parameters, strict=True):
                summed.add_(parameter, alpha=rows)
            total += rows
        return total


def run_bare(config: RunConfig, workers: int = 1) -> BareResult:
    """The whole run, from the source to the final score.

    Args:
        workers: 1: in this process, one thread. More: so many forked processes, one thread each, fed with the
            clients that have most rows first.

    Raises:
        ConfigError: see `refuse`.
        RunFailed: a worker ended.
    """
    from fedimb.bench.bare_workers import BareWorkers

    torch.set_num_threads(1)
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    clients = BareClients(config, federation)
    roster = Roster(config.clients, config.seed, federation.train_sizes)
    weights = [p.detach().clone() for p in clients.parameters]
    result = BareResult()
    with BareWorkers(clients, weights, workers if workers > 1 else 0) as pool:
        for server_round in range(1, config.rounds + 1):
            cohort = roster.cohort(server_round).asked
            if workers > 1:
                pool.round(cohort, server_round)
            else:
                sums = [torch.zeros_like(w, dtype=torch.float64) for w in weights]
                total = clients.train_all(cohort, server_round, weights, sums)
                for weight, summed in zip(weights, sums, strict=True):
                    weight.copy_(summed.div_(total))
            if server_round == config.rounds:
                result.macro_recall = macro_recall(clients, weights, federation)
            result.ends.append(time.time())
            trained = sum(len(federation.train[k]) for k in cohort) if clients.trains else 0
            result.rows.append(config.local.epochs * trained)
    names = [name for name, _ in clients.model.named_parameters()]
    result.weights = dict(zip(names, weights, strict=True))
    return result


@torch.no_grad()
def macro_recall(clients: BareClients, weights: Sequence[Tensor], federation: Federation) -> float:
    """Mean over the classes of the test set of the share of their rows that is found."""
    torch._foreach_copy_(clients.parameters, list(weights))
    clients.model.eval()
    x, y = to_tensors(federation.store, federation.test, federation.scaling)
    found = torch.cat([clients.model(part).argmax(1) for part in x.split(_TEST_ROWS)]) == y
    support = torch.bincount(y, minlength=federation.n_classes)
    hits = torch.bincount(y[found], minlength=federation.n_classes)
    clients.model.train()
    return float((hits[support > 0].double() / support[support > 0]).mean())
