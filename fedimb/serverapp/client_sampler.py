"""Which clients are available and which are chosen in each round, by stable client id, from the run's streams."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fedimb.schema import ClientsConfig
from fedimb.seeds import Stream, numpy_rng


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
        sizes: rows each client trains on, [K]; clients without rows are never chosen.
        nodes: client id -> Flower node id; None: client id + 1 (simulation).
    """

    def __init__(
        self, config: ClientsConfig, seed: int, sizes: np.ndarray, nodes: dict[int, int] | None = None
    ) -> None:
        self._config, self._seed = config, seed
        self.sizes = np.asarray(sizes)
        self.eligible = np.flatnonzero(self.sizes > 0)
        self._nodes = nodes
        # Which clients are slow is a property of the client, not of the round.
        self.slow = numpy_rng(seed, Stream.SLOW).random(len(self.sizes)) < config.slow

    def node(self, client: int) -> int:
        """Flower node id of a client."""
        return self._nodes[client] if self._nodes is not None else client + 1

    def per_round(self) -> int:
        """Number of clients chosen in a round if all are available: the fraction rounded, at least one."""
        return max(1, int(self._config.participation * len(self.eligible) + 0.5))

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
        count = len(self.sizes)
        available = self.eligible if among is None else among
        if self._config.availability < 1:
            draws = numpy_rng(self._seed, Stream.AVAILABILITY, server_round, model).random(count)
            available = available[draws[available] < self._config.availability]
        size = min(asks(self.per_round()), len(available))
        if size < len(available):
            rng = numpy_rng(self._seed, Stream.COHORT, server_round, model)
            available = np.sort(rng.choice(available, size=size, replace=False))
        asked = [int(c) for c in available]
        lost: dict[int, str] = {}
        if self._config.dropout > 0:
            draws = numpy_rng(self._seed, Stream.DROPOUT, server_round, model).random(count)
            lost = {c: "dropped out (simulated)" for c in asked if draws[c] < self._config.dropout}
        slow = [c for c in asked if self.slow[c] and c not in lost]
        waited = self._config.slow_delay_s if slow else 0.0
        deadline = self._config.deadline_s
        if deadline is not None and waited > deadline:
            lost |= dict.fromkeys(slow, f"missed the deadline of {deadline:g} s (simulated)")
            waited = deadline
        return Cohort(asked, lost, waited)
