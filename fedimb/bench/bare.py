"""The same work without the platform: federated averaging written by hand in torch.

It has the same clients, cohorts, initial weights and batch order as the platform, hence the same final weights (within
1e-5, tested); everything else is left out: no Flower, no records, no run folder, no checks. One resident model, weights
copied in place, index batches on resident tensors, SGD by hand, the weighted mean summed in float64.
"""

import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedimb.bench.noop import NAME as NOOP
from fedimb.config.parts import build_model
from fedimb.data.federation import Federation
from fedimb.data.prepare import prepare
from fedimb.data.views import to_tensors
from fedimb.errors import ConfigError, RunFailed
from fedimb.models.base import buffers_of
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, torch_generator
from fedimb.serverapp.client_sampler import ClientSampler

_TEST_ROWS = 256
_LOOK_S = 5.0


@dataclass
class BareResult:
    """The result of a bare run.

    Attributes:
        ends: epoch seconds at the end of each round.
        rows: rows trained on in each round, times epochs.
        macro_recall: macro recall of the final weights on the test set, over its classes.
        weights: final weights by parameter name.
    """

    ends: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    macro_recall: float = math.nan
    weights: dict[str, Tensor] = field(default_factory=dict)


def refuse(config: RunConfig) -> None:
    """Raise ConfigError unless the configuration is plain federated averaging, the only method done here."""
    plain = {
        "strategy": list(config.strategy) in (["plain"], [NOOP]),
        "aggregator": config.aggregator["name"] == "fedavg",
        "loss": config.loss["name"] == "ce",
        "sampler": config.sampler["name"] == "shuffle",
        "resampler": config.resampler["name"] == "none",
        "aggregator.objectives": not config.aggregator.get("objectives"),
        "clients.models": config.clients.models is None,
        "clients.private": not config.clients.private,
        "attack": config.attack["name"] == "none",
        "pace": config.pace["name"] == "sync",
        "privacy": config.privacy.clip is None and not config.privacy.noise,
        "local": config.local.optimizer == "sgd"
        and not (config.local.augmentation or config.local.nesterov or config.local.decay_exempt)
        and not (config.local.max_grad_norm or config.local.label_smoothing)
        and config.local.precision == "float32"
        and config.local.schedule.constant,
        "clients": config.clients.dropout == config.clients.slow == 0,
        "data.validation": config.data.get("validation", 0.0) == 0,
    }
    if wrong := [name for name, fits in plain.items() if not fits]:
        raise ConfigError(f"the bare program does only plain FedAvg with SGD and cross-entropy: change {wrong[0]}")


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
            raise ConfigError("the bare program does not support BatchNorm: use model.norm=group")
        self.model.train()
        self.parameters: list[Tensor] = list(self.model.parameters())
        self.seed, self.local = config.seed, config.local
        self.trains = NOOP not in config.strategy
        sizes = federation.train_sizes
        self.data = {k: federation.client(k).tensors("train") for k in range(len(sizes)) if sizes[k]}

    def train(self, client: int, server_round: int, weights: Sequence[Tensor]) -> int:
        """Train the model from ``weights``; afterwards it has the client's weights. Returns the client's rows."""
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
        """Train clients one after another and add rows x weights to ``sums`` (float64); returns the total of rows."""
        total = 0
        for client in cohort:
            with torch.enable_grad():
                rows = self.train(client, server_round, weights)
            for summed, parameter in zip(sums, self.parameters, strict=True):
                summed.add_(parameter, alpha=rows)
            total += rows
        return total


class BareWorkers:
    """A pool of forked processes that share the clients; a context manager.

    Args:
        clients: inherited by the processes together with their rows, which are not copied.
        weights: the global weights, one tensor per parameter; moved to shared memory and updated in place.
        count: number of processes; 0: none, then `round` must not be called.
    """

    def __init__(self, clients: BareClients, weights: Sequence[Tensor], count: int) -> None:
        self._clients, self._weights = clients, weights
        self._sums: list[list[Tensor]] = []
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        if not count:
            return
        context = multiprocessing.get_context("fork")
        self._next = context.Value("i", 0)
        for weight in weights:
            weight.share_memory_()
        for _ in range(count):
            sums = [torch.zeros_like(w, dtype=torch.float64).share_memory_() for w in weights]
            own_end, worker_end = context.Pipe()
            process = context.Process(target=self._work, args=(worker_end, sums), daemon=True)
            process.start()
            worker_end.close()  # so that reading fails if the worker dies, instead of waiting forever
            self._sums.append(sums)
            self._pipes.append(own_end)
            self._processes.append(process)

    def _work(self, pipe: Connection, sums: list[Tensor]) -> None:
        torch.set_num_threads(1)
        parent = os.getppid()
        while True:
            while not pipe.poll(_LOOK_S):
                if os.getppid() != parent:  # the parent was killed and cannot send the end
                    return
            if (work := pipe.recv()) is None:
                return
            server_round, cohort = work
            for summed in sums:
                summed.zero_()
            total = 0
            while (turn := self._take()) < len(cohort):
                total += self._clients.train_all([cohort[turn]], server_round, self._weights, sums)
            pipe.send(total)

    def _take(self) -> int:
        with self._next.get_lock():
            turn = int(self._next.value)
            self._next.value = turn + 1
        return turn

    def round(self, cohort: Sequence[int], server_round: int) -> None:
        """Train a cohort and set ``weights`` to its weighted mean. Raises RunFailed if a worker has died."""
        ordered = sorted(cohort, key=lambda k: -len(self._clients.data[k][1]))
        self._next.value = 0
        try:
            for pipe in self._pipes:
                pipe.send((server_round, ordered))
            total = sum(pipe.recv() for pipe in self._pipes)
        except (EOFError, OSError) as error:
            raise RunFailed(f"a process of the bare program died in round {server_round}; is memory short?") from error
        for i, weight in enumerate(self._weights):
            summed = self._sums[0][i]
            for sums in self._sums[1:]:
                summed = summed + sums[i]
            weight.copy_(summed / total)

    def __enter__(self) -> "BareWorkers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            if error is None:
                pipe.send(None)
                process.join()
            else:
                process.terminate()


def run_bare(config: RunConfig, workers: int = 1) -> BareResult:
    """The whole run, from the source to the final score.

    Args:
        workers: 1: in this process, one thread. More: that many forked processes with one thread each; clients with the
            most rows are trained first.

    Raises:
        ConfigError: see `refuse`.
        RunFailed: a worker died.
    """
    torch.set_num_threads(1)
    federation = prepare(config.data, config.partition, config.clients.count, config.seed)
    clients = BareClients(config, federation)
    client_sampler = ClientSampler(config.clients, config.seed, federation.train_sizes)
    weights = [p.detach().clone() for p in clients.parameters]
    result = BareResult()
    with BareWorkers(clients, weights, workers if workers > 1 else 0) as pool:
        for server_round in range(1, config.rounds + 1):
            cohort = client_sampler.cohort(server_round).asked
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
    """Mean recall over the classes of the test set."""
    torch._foreach_copy_(clients.parameters, list(weights))
    clients.model.eval()
    x, y = to_tensors(federation.store, federation.test, federation.scaling)
    found = torch.cat([clients.model(part).argmax(1) for part in x.split(_TEST_ROWS)]) == y
    support = torch.bincount(y, minlength=federation.n_classes)
    hits = torch.bincount(y[found], minlength=federation.n_classes)
    clients.model.train()
    return float((hits[support > 0].double() / support[support > 0]).mean())
