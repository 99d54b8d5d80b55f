"""Which clients are available and which are chosen in each round, by stable client id, from the run's streams.

A round costs as much as its cohort, not as the registered clients: draws of single clients are read where they stand in
their stream (`fedimb.seeds.uniforms_at`). Only availability needs a draw of every client, as long as there are at most
`DENSE` of them; beyond, candidates are taken in the order of a keyed permutation until enough are available.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedimb.data.virtual_federation import VirtualSizes
from fedimb.errors import ConfigError
from fedimb.schema import ClientsConfig
from fedimb.seeds import Stream, numpy_rng, uniforms_at
from fedimb.serverapp.keyed_permutation import KeyedPermutation

DENSE = 2**20
"""Clients up to which availability is drawn for all of them; beyond, the same settings give another cohort."""

_CANDIDATES = 64, 4096  # looked at together: fewest and most
_MOST_CANDIDATES = 2**22
"""Clients that a round may have to look at, of more than `DENSE`, to find enough available ones: some 10 s."""


@dataclass(frozen=True)
class Cohort:
    """One round's clients.

    Attributes:
        asked: ids of the chosen clients, sorted.
        lost: those of them whose reply is lost, with the simulated reason.
        virtual_s: how long the server would have waited for simulated slow clients, in seconds.
        late: those of them that train, but whose replies are not waited for.
        ns: how long the round takes on the clock of its pace, in nanoseconds; 0 without one.
        step: factor on the mean update (`fedimb.paces.base.Pool`).
    """

    asked: list[int]
    lost: dict[int, str] = field(default_factory=dict)
    virtual_s: float = 0.0
    late: frozenset[int] = frozenset()
    ns: int = 0
    step: float = 1.0


class ClientSampler:
    """Samples a run's clients for each round.

    Args:
        config: participation and simulated failures.
        seed: run seed.
        sizes: rows each client trains on, [K]; clients without rows are never chosen. Those of virtual clients
            (`fedimb.data.virtual_federation`) are computed where they are read.
        nodes: client id -> Flower node id; None: client id + 1 (simulation).

    Raises:
        ConfigError: so few clients are available, of so many, that a round could not find its cohort.
    """

    def __init__(
        self, config: ClientsConfig, seed: int, sizes: NDArray[np.int64], nodes: dict[int, int] | None = None
    ) -> None:
        self._config, self._seed = config, seed
        self.virtual = isinstance(sizes, VirtualSizes)
        self.sizes = sizes if self.virtual else np.asarray(sizes)
        self._holding = len(sizes) if self.virtual else int(np.count_nonzero(self.sizes > 0))
        self._nodes = nodes
        expected = self.per_round() / config.availability * len(sizes) / max(1, self._holding)
        if self.permuted and expected > _MOST_CANDIDATES:
            raise ConfigError(
                f"clients.availability={config.availability:g} with {len(sizes):,} clients: a round would look at "
                f"{expected:,.0f} of them to find {self.per_round():,} that are available; set a higher availability, "
                f"a smaller clients.participation, or clients.count of at most {DENSE:,}"
            )

    @property
    def permuted(self) -> bool:
        """Whether cohorts are drawn by a keyed permutation: availability below 1 and more than `DENSE` clients."""
        return self._config.availability < 1 and len(self.sizes) > DENSE

    @cached_property
    def eligible(self) -> NDArray[np.int64]:
        """Ids of all clients with rows, [n] int64. Raises DataError if they are virtual: there may be too many."""
        return np.flatnonzero(self.sizes > 0)

    @cached_property
    def slow(self) -> NDArray[np.bool_]:
        """Which clients are slow, [K]: a property of the client, not of the round."""
        return numpy_rng(self._seed, Stream.SLOW).random(len(self.sizes)) < self._config.slow

    def node(self, client: int) -> int:
        """Flower node id of a client."""
        return self._nodes[client] if self._nodes is not None else client + 1

    def per_round(self) -> int:
        """Number of clients chosen in a round if all are available: the fraction rounded, at least one."""
        return max(1, int(self._config.participation * self._holding + 0.5))

    def cohort(
        self,
        server_round: int,
        model: int = 0,
        among: np.ndarray | None = None,
        asks: Callable[[int], int] = lambda size: size,
    ) -> Cohort:
        """The round's cohort: available clients, sampled without replacement, with simulated losses marked.

        Args:
            server_round: 1-based.
            model: 0 is the global model; rounds of other models use other draws.
            among: ids of clients with rows, sorted, that are drawn from; None: all.
            asks: how many clients are asked, for a cohort of `per_round` clients.
        """
        asked = [int(c) for c in self._chosen(server_round, model, among, asks(self.per_round()))]
        lost: dict[int, str] = {}
        if self._config.dropout > 0:
            draws = uniforms_at(self._seed, Stream.DROPOUT, asked, server_round, model)
            gone = zip(asked, draws, strict=True)
            lost = {c: "dropped out (simulated)" for c, draw in gone if draw < self._config.dropout}
        slow = [c for c in self._slow(asked) if c not in lost]
        waited = self._config.slow_delay_s if slow else 0.0
        deadline = self._config.deadline_s
        if deadline is not None and waited > deadline:
            lost |= dict.fromkeys(slow, f"missed the deadline of {deadline:g} s (simulated)")
            waited = deadline
        return Cohort(asked, lost, waited)

    def _slow(self, clients: list[int]) -> list[int]:
        """Those of the clients, sorted, that are slow: a property of the client, not of the round."""
        if not self._config.slow:
            return []
        draws = uniforms_at(self._seed, Stream.SLOW, clients)
        return [c for c, draw in zip(clients, draws, strict=True) if draw < self._config.slow]

    def _chosen(self, server_round: int, model: int, among: NDArray[np.int64] | None, wanted: int) -> NDArray[np.int64]:
        """Ids of the round's clients, sorted int64: as many as are wanted, or all that are available."""
        if self.permuted:
            return self._first_available(server_round, model, among, wanted)
        available = among  # None: all clients
        if available is None and self._holding < len(self.sizes):
            available = self.eligible
        if self._config.availability < 1:
            draws = numpy_rng(self._seed, Stream.AVAILABILITY, server_round, model).random(len(self.sizes))
            reached = draws < self._config.availability
            available = np.flatnonzero(reached) if available is None else available[reached[available]]
        count = len(self.sizes) if available is None else len(available)
        size = min(wanted, count)
        if size == count:
            return np.arange(count) if available is None else available
        rng = numpy_rng(self._seed, Stream.COHORT, server_round, model)
        drawn = rng.choice(count, size=size, replace=False)  # the draw is the same from an array as from its length
        return np.sort(drawn if available is None else available[drawn])

    def _first_available(
        self, server_round: int, model: int, among: NDArray[np.int64] | None, wanted: int
    ) -> NDArray[np.int64]:
        """The first clients of a permutation of all that have rows and are available; fewer where there are no more."""
        found = np.zeros(0, np.int64)
        for candidates in self._candidates(server_round, model, wanted):
            if among is not None:
                candidates = candidates[np.isin(candidates, among)]
            draws = uniforms_at(self._seed, Stream.AVAILABILITY, np.sort(candidates).tolist(), server_round, model)
            draws = draws[np.argsort(np.argsort(candidates))]  # in the order of the candidates again
            found = np.concatenate([found, candidates[draws < self._config.availability]])
            if len(found) >= wanted:
                break
        return np.sort(found[:wanted])

    def _candidates(self, server_round: int, model: int, wanted: int) -> Iterator[NDArray[np.int64]]:
        count = len(self.sizes)
        order = KeyedPermutation(count, (self._seed, int(Stream.COHORT), server_round, model))
        likely = int(1.25 * wanted / self._config.availability * count / self._holding)
        step = min(max(likely, _CANDIDATES[0]), _CANDIDATES[1])
        for start in range(0, count, step):
            clients = order(np.arange(start, min(start + step, count)))
            yield clients if self._holding == count else clients[self.sizes[clients] > 0]
