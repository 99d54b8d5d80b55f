"""When each training begins and arrives, and into which version of the model it goes, before any client trains.

A client that arrives is replaced at once by one drawn from those that do not train; every ``buffer`` arrivals make the
next version. Events are ordered by time and, at the same time, by the number of the training. A client trains on each
version at most once: a second training would repeat the first. So where all clients train at a time, one that is done
waits for the next version, and a version may be made of fewer arrivals when nobody else can begin.

With exposure correction an update's weight is multiplied by the share of arrivals that each client should have, 1 / N,
over the one that it has, (its arrivals + 1) / (all arrivals + N), within 1/10 to 10, from 2 N arrivals on.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedimb.paces.asynchronous import Corrections
from fedimb.paces.base import SECOND

LARGEST_FACTOR = 10.0
"""Largest factor on a client's weight; the smallest is its inverse."""
_ROUNDS_BEFORE = 2  # arrivals in units of the clients, before weights are corrected

DROPPED, STALE, UNFINISHED = "dropped out", "too stale", "in flight at the end"
FAILED = "no usable reply"


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


class Dispatch:
    """Who begins, given who arrives. The same for a schedule and for sites, whose arrivals nobody knows before.

    Args:
        rules: what it follows.
        draws: a generator for each draw of a client, by its number.
        ends: (client, number of the training, when it begins) -> when it arrives; None: nobody knows.

    Attributes:
        trainings: all that have begun, by number.
    """

    def __init__(
        self,
        rules: Rules,
        draws: Callable[[int], np.random.Generator],
        ends: Callable[[int, int, int], int] | None = None,
    ) -> None:
        self.rules, self._draws, self._ends = rules, draws, ends
        self.trainings: list[Training] = []
        self._seen: dict[int, int] = {}
        self._arrived = 0
        self._tries = 0
        self._busy: dict[int, int] = {}  # client -> number of its training
        self._begun: set[int] = set()  # with the newest version

    @property
    def in_flight(self) -> list[int]:
        """Numbers of the trainings that have begun and not arrived, sorted."""
        return sorted(self._busy.values())

    def training_of(self, client: int) -> Training:
        """The training in flight of a client. Raises KeyError if it does not train."""
        return self.trainings[self._busy[client]]

    def next_version(self) -> None:
        """A version has been made: every client may begin with it."""
        self._begun = set()

    def begin(self, version: int, now_ns: int) -> list[Training]:
        """Fill the free places, as far as somebody can begin; returns what begins."""
        first = len(self.trainings)
        while len(self._busy) < self.rules.concurrency:
            rng = self._draws(self._tries)
            self._tries += 1
            client = self._drawn(rng)
            if client is None:
                break
            number = len(self.trainings)
            ends = now_ns if self._ends is None else self._ends(client, number, now_ns)
            lost = DROPPED if self.rules.dropout and rng.random() < self.rules.dropout else ""
            self.trainings.append(Training(number, client, version, now_ns, ends, lost=lost))
            self._busy[client] = number
            self._begun.add(client)
        return self.trainings[first:]

    def arrive(self, number: int, version: int, now_ns: int, failed: str = "") -> Training:
        """A training ends; its client may begin another.

        Args:
            version: the newest one.
            failed: why its reply cannot be used.

        Returns:
            the training: ``makes`` is the version after the newest one, or it is lost.
        """
        own = self.trainings[number]
        del self._busy[own.client]
        most, lost = self.rules.max_staleness, failed or own.lost
        if not lost and most is not None and version - own.version > most:
            lost = STALE
        if lost:
            own = replace(own, ends_ns=now_ns, lost=lost)
        else:
            own = replace(own, ends_ns=now_ns, makes=version + 1, weight=self.factor(own.client))
            self._count(own.client)
        self.trainings[number] = own
        return own

    def factor(self, client: int) -> float:
        """The factor on the client's weight, if it arrived next."""
        clients = len(self.rules.clients)
        if self.rules.correction != "exposure" or self._arrived < _ROUNDS_BEFORE * clients:
            return 1.0
        share = (self._seen.get(client, 0) + 1) / (self._arrived + clients)
        return min(LARGEST_FACTOR, max(1 / LARGEST_FACTOR, 1 / clients / share))

    def _count(self, client: int) -> None:
        self._seen[client] = self._seen.get(client, 0) + 1
        self._arrived += 1

    def _drawn(self, rng: np.random.Generator) -> int | None:
        """A client that can begin, each with the same probability; None: nobody can."""
        clients, tried = self.rules.clients, set[int]()
        out = self._busy.keys() | self._begun
        while len(tried) < len(clients) - len(out):
            client = int(clients[rng.integers(len(clients))])
            if client in out or client in tried:
                continue
            if self.rules.availability >= 1 or rng.random() < self.rules.availability:
                return client
            tried.add(client)
        return None

    def finished(self, numbers: Iterable[int]) -> tuple[Training, ...]:
        """These trainings as they ended, by client id; those still in flight are lost."""
        ended = [self.trainings[number] for number in numbers]
        marked = [one if one.makes or one.lost else replace(one, lost=UNFINISHED) for one in ended]
        return tuple(sorted(marked, key=lambda one: one.client))


class _Simulation:
    """The events of one schedule: each training arrives when its client is expected to be done."""

    def __init__(
        self, rules: Rules, duration: Callable[[int, int], int], draws: Callable[[int], np.random.Generator]
    ) -> None:
        self.rules = rules
        self.dispatch = Dispatch(rules, draws, lambda client, number, now: now + duration(client, number))
        self._heap: list[tuple[int, int]] = []
        self._now = 0

    def version(self, number: int) -> Version:
        """Run until the version after ``number`` is made."""
        dispatch = self.dispatch
        first, arrivals = len(dispatch.trainings), list[int]()
        dispatch.next_version()
        self._begin(number)
        while self._heap and len(arrivals) < self.rules.buffer:
            self._now, training = heapq.heappop(self._heap)
            if dispatch.arrive(training, number, self._now).makes:
                arrivals.append(training)
            if len(arrivals) < self.rules.buffer:
                self._begin(number)
        starts = tuple(dispatch.trainings[first:])
        made_of = tuple(dispatch.trainings[i] for i in arrivals)
        return Version(starts, made_of, self._now, len(dispatch.in_flight))

    def _begin(self, version: int) -> None:
        for one in self.dispatch.begin(version, self._now):
            heapq.heappush(self._heap, (one.ends_ns, one.number))


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
        return running.dispatch.finished(one.number for one in trainings)

    return [replace(one, starts=final(one.starts), arrivals=final(one.arrivals)) for one in made]


def as_csv(versions: Sequence[Version], discount: Callable[[int], float]) -> str:
    """All trainings of a schedule, one line each, in the order in which they begin."""
    return trainings_csv([one for version in versions for one in version.starts], discount)


def trainings_csv(trainings: Iterable[Training], discount: Callable[[int], float]) -> str:
    """Trainings, one line each, in the order in which they begin."""
    lines = ["training,client,version,begins_s,ends_s,makes,staleness,weight,discount,lost"]
    for one in sorted(trainings, key=lambda one: one.number):
        times = f"{one.begins_ns / SECOND:.9f},{one.ends_ns / SECOND:.9f}"
        used = f"{one.makes},{one.staleness},{one.weight!r},{discount(one.staleness)!r}" if one.makes else ",,,"
        lines.append(f"{one.number},{one.client},{one.version},{times},{used},{one.lost}")
    return "\n".join(lines) + "\n"
