"""When each training begins and arrives, and into which version of the model it goes, before any client trains.

A client that arrives is replaced at once by one drawn from those that do not train; every ``buffer`` arrivals make the
next version. Events are ordered by time and, at the same time, by the number of the training. A client trains on each
version at most once: a second training would repeat the first. So where all clients train at a time, one that is done
waits for the next version, and a version may be made of fewer arrivals when nobody else can begin.

With exposure correction an update's weight is multiplied by the share of arrivals that each client should have, 1 / N,
over the one that it has, (its arrivals + 1) / (all arrivals + N), within 1/10 to 10, from 2 N arrivals on.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedimb.paces.asynchronous import Corrections
from fedimb.paces.base import SECOND

_CLIP = 10.0
_ROUNDS_BEFORE = 2  # arrivals in units of the clients, before weights are corrected

DROPPED, STALE, UNFINISHED = "dropped out", "too stale", "in flight at the end"


@dataclass(frozen=True)
class Training:
    """One training of one client.

    Attributes:
        number: in the order in which trainings begin, from 0.
        client: stable id.
        version: of the model that it begins with, from 0.
        begins_ns, ends_ns: on the clock of the schedule.
        makes: the version that its update goes into, from 1; None: it is in none.
        lost: why ``makes`` is None.
        weight: factor on the client's weight.
    """

    number: int
    client: int
    version: int
    begins_ns: int
    ends_ns: int
    makes: int | None = None
    lost: str = ""
    weight: float = 1.0

    @property
    def staleness(self) -> int:
        """Versions between the one it began with and the one it is applied to; of a lost one 0."""
        return 0 if self.makes is None else self.makes - 1 - self.version


@dataclass(frozen=True)
class Version:
    """What happens while one version of the model is the newest.

    Attributes:
        starts: trainings that begin with it, by client id.
        arrivals: trainings that make the next version, by client id.
        ends_ns: when the next version is made.
        in_flight: clients that train at that moment.
    """

    starts: tuple[Training, ...]
    arrivals: tuple[Training, ...]
    ends_ns: int
    in_flight: int


@dataclass(frozen=True)
class Rules:
    """What a schedule follows.

    Attributes:
        clients: ids [N] of the clients with rows.
        concurrency: clients that train at a time.
        buffer: arrivals that make a version.
        max_staleness: later arrivals do not count; None: all do.
        correction: of the weights.
        availability: probability that a client that is drawn can begin.
        dropout: probability that a training does not arrive.
    """

    clients: np.ndarray
    concurrency: int
    buffer: int
    max_staleness: int | None = None
    correction: Corrections = "uniform"
    availability: float = 1.0
    dropout: float = 0.0


class _Simulation:
    """The events of one schedule."""

    def __init__(
        self, rules: Rules, duration: Callable[[int, int], int], draws: Callable[[int], np.random.Generator]
    ) -> None:
        self.rules, self.duration, self.draws = rules, duration, draws
        self.trainings: list[Training] = []
        self.seen: dict[int, int] = {}
        self.arrived = 0
        self._tries = 0
        self._busy: set[int] = set()
        self._begun: set[int] = set()  # with the newest version
        self._heap: list[tuple[int, int]] = []
        self._now = 0

    def version(self, number: int) -> Version:
        """Run until the version after ``number`` is made."""
        first, arrivals = len(self.trainings), list[int]()
        self._begun = set()
        self._begin(number)
        while self._heap and len(arrivals) < self.rules.buffer:
            self._now, training = heapq.heappop(self._heap)
            own = self.trainings[training]
            self._busy.remove(own.client)
            most = self.rules.max_staleness
            if most is not None and number - own.version > most and not own.lost:
                self.trainings[training] = replace(own, lost=STALE)
            elif not own.lost:
                self.trainings[training] = replace(own, makes=number + 1, weight=self._weight(own.client))
                arrivals.append(training)
            if len(arrivals) < self.rules.buffer:
                self._begin(number)
        starts = tuple(self.trainings[first:])
        return Version(starts, tuple(self.trainings[i] for i in arrivals), self._now, len(self._busy))

    def _weight(self, client: int) -> float:
        clients, weight = len(self.rules.clients), 1.0
        if self.rules.correction == "exposure" and self.arrived >= _ROUNDS_BEFORE * clients:
            share = (self.seen.get(client, 0) + 1) / (self.arrived + clients)
            weight = min(_CLIP, max(1 / _CLIP, 1 / clients / share))
        self.seen[client] = self.seen.get(client, 0) + 1
        self.arrived += 1
        return weight

    def _begin(self, version: int) -> None:
        """Fill the free places, as far as somebody can begin."""
        while len(self._busy) < self.rules.concurrency:
            rng = self.draws(self._tries)
            self._tries += 1
            client = self._drawn(rng)
            if client is None:
                return
            number = len(self.trainings)
            ends = self._now + self.duration(client, number)
            lost = DROPPED if self.rules.dropout and rng.random() < self.rules.dropout else ""
            self.trainings.append(Training(number, client, version, self._now, ends, lost=lost))
            self._busy.add(client)
            self._begun.add(client)
            heapq.heappush(self._heap, (ends, number))

    def _drawn(self, rng: np.random.Generator) -> int | None:
        """A client that can begin, each with the same probability; None: nobody can."""
        clients, tried = self.rules.clients, set[int]()
        out = self._busy | self._begun
        while len(tried) < len(clients) - len(out):
            client = int(clients[rng.integers(len(clients))])
            if client in out or client in tried:
                continue
            if self.rules.availability >= 1 or rng.random() < self.rules.availability:
                return client
            tried.add(client)
        return None


def schedule(
    versions: int,
    rules: Rules,
    duration: Callable[[int, int], int],
    draws: Callable[[int], np.random.Generator],
) -> list[Version]:
    """The schedule of a training without rounds.

    Args:
        versions: of the model that are made.
        rules: what it follows.
        duration: (client, number of the training) -> nanoseconds.
        draws: a generator for each draw of a client, by its number.

    Returns:
        one entry per version that trainings begin with; the last trainings that do not arrive are marked as lost.

    Example:
        >>> rules = Rules(np.arange(3), concurrency=2, buffer=1)
        >>> made = schedule(3, rules, lambda client, number: 10 + client, np.random.default_rng)
        >>> [(v.ends_ns, [(t.client, t.version, t.staleness) for t in v.arrivals]) for v in made]
        [(11, [(1, 0, 0)]), (12, [(2, 0, 1)]), (21, [(0, 1, 1)])]
    """
    running = _Simulation(rules, duration, draws)
    made = [running.version(number) for number in range(versions)]

    def final(trainings: Sequence[Training]) -> tuple[Training, ...]:
        ended = [running.trainings[training.number] for training in trainings]
        marked = [one if one.makes or one.lost else replace(one, lost=UNFINISHED) for one in ended]
        return tuple(sorted(marked, key=lambda one: one.client))

    return [replace(one, starts=final(one.starts), arrivals=final(one.arrivals)) for one in made]


def as_csv(versions: Sequence[Version], discount: Callable[[int], float]) -> str:
    """All trainings of a schedule, one line each, in the order in which they begin."""
    lines = ["training,client,version,begins_s,ends_s,makes,staleness,weight,discount,lost"]
    trainings = sorted((one for version in versions for one in version.starts), key=lambda one: one.number)
    for one in trainings:
        times = f"{one.begins_ns / SECOND:.9f},{one.ends_ns / SECOND:.9f}"
        used = f"{one.makes},{one.staleness},{one.weight!r},{discount(one.staleness)!r}" if one.makes else ",,,"
        lines.append(f"{one.number},{one.client},{one.version},{times},{used},{one.lost}")
    return "\n".join(lines) + "\n"
