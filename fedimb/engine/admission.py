"""Admission: every record of every reply is checked before anything uses it, with the same code on every engine.

What a record may hold is declared in its contract (`fedimb.contracts.base.Values`); how many rows a client has, how
large the model is and what it was sent is known here. A reply that breaks a declaration is left out as a whole, and its
first fault is kept with the reply as a `Refusal`.

What a client has said of its rows in earlier replies is kept too (`Told`): a confusion matrix whose rows are of other
classes than before, or of one that it has counted no row of, contradicts it. Of regions nothing follows from that:
their sums are over the sites that replied, which change, and are bounded by the rows of all of them.

Values that are not finite in weights are left to the lanes, because training may diverge without anybody's intent. A
masked figure cannot be screened singly: see `check_total`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from fedimb.by_reference import view
from fedimb.contracts import platform as names
from fedimb.contracts.base import Contract, Record
from fedimb.data.region_rows import RegionRows
from fedimb.engine.record_checks import Declared, Refusal, Sizes, check_declared
from fedimb.errors import RunFailed
from fedimb.evaluation.confusion import hits_and_support
from fedimb.evaluation.subgroups import UNIT
from fedimb.privacy.egress_filter import declared_for
from fedimb.sums import WeightLimits
from fedimb.text import clean_text

_KINDS = {ArrayRecord: "arrays", MetricRecord: "metrics", ConfigRecord: "config"}
_MATRICES = {("train", names.CONFUSION), (f"query.{names.SCORED}", names.SCORES)}
"""(type of the message, record) that hold confusion matrices of a client's validation rows, in the clear."""


@dataclass
class Told:
    """What clients have said of their rows in replies that were used.

    Attributes:
        validation: client id -> validation rows of each class [C] int64, by the last confusion matrix.
        train: client id -> training rows of each class [C] int64, as counted for the prior.
    """

    validation: dict[int, np.ndarray] = field(default_factory=dict)
    train: dict[int, np.ndarray] = field(default_factory=dict)

    def only(self, clients: Iterable[int]) -> "Told":
        """The same of these clients alone."""
        own = set(clients)
        return Told(*({c: rows for c, rows in one.items() if c in own} for one in (self.validation, self.train)))

    def contradiction(self, client: int, key: str, record: ArrayRecord) -> Refusal | None:
        """What in a record of confusion matrices is not as the client said before; None: nothing.

        Rows of a class may become fewer, as records are withdrawn, and never more. A split leaves a row of each class
        to train on, so a class without one has none to validate on; of rows with several labels that is not so.
        """
        first: np.ndarray | None = None
        for name, array in record.items():
            matrix = view(array)
            rows = hits_and_support(matrix)[1]
            first = rows if first is None else first
            before = self.validation.get(client, rows)
            more = np.flatnonzero(rows > before)
            counted = self.train.get(client, rows) if matrix.ndim == 2 else rows
            none = np.flatnonzero((rows > 0) & (counted == 0))
            if not np.array_equal(rows, first):
                text = "has rows of other classes than the reply's first matrix"
            elif len(more):
                text = f"has {rows[more[0]]} rows of class {more[0]}, of which there were {before[more[0]]} before"
            elif len(none):
                text = f"has {rows[none[0]]} rows of class {none[0]}, of which the client has counted none to train on"
            else:
                continue
            return Refusal(key, clean_text(name, 60), text)
        return None


class HeldRows(Mapping[int, tuple[int, int]]):
    """(training rows, validation rows) by client id, without an object per client.

    Args:
        train, validation: [K] integers.
        instead: other numbers of single clients.
    """

    def __init__(
        self, train: np.ndarray, validation: np.ndarray, instead: Mapping[int, tuple[int, int]] | None = None
    ) -> None:
        self._train, self._validation, self._instead = train, validation, dict(instead or {})

    def __getitem__(self, client: int) -> tuple[int, int]:
        if client in self._instead:
            return self._instead[client]
        if not 0 <= client < len(self._train):
            raise KeyError(client)
        return int(self._train[client]), int(self._validation[client])

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._train)))

    def __len__(self) -> int:
        return len(self._train)


@dataclass
class Admission:
    """Checks the replies of a run's clients.

    Args:
        contracts: of the run.
        settings: arguments of each method by its name, for the noise that a record declares.
        sizes: see `Sizes`.
        rows: client id -> (training rows, validation rows), as the plan or the partition has them.
        signed: whether replies are known to come from whom they name. Only then are a client's refused replies counted
            against it (`fedimb.serverapp.exchange.Exchange`): anybody could send faults in another's name.
        told: what clients have said in earlier replies; who sends the messages keeps it up to date.
        regions: client id -> what is known of its sites' rows, if every client is a region; empty: none is.
        least_sites: how many sites a region's sum is over at least.
        stateless: whether a reply that reports a state kept at its client is refused: a region follows no versions.
    """

    contracts: Sequence[Contract]
    settings: Mapping[str, Mapping[str, Any]]
    sizes: Sizes
    rows: Mapping[int, tuple[int, int]]
    signed: bool = True
    told: Told = field(default_factory=Told)
    regions: Mapping[int, RegionRows] = field(default_factory=dict)
    least_sites: int = 1
    stateless: bool = False
    _declared: dict[str, tuple[dict[str, Declared], list[str]]] = field(default_factory=dict, repr=False)
    _limits: dict[int, dict[str, float]] = field(default_factory=dict, repr=False)

    def only(self, clients: Iterable[int]) -> "Admission":
        """The same for these clients alone, to be sent to another process."""
        rows = {c: self.rows[c] for c in clients}
        return replace(self, rows=rows, told=self.told.only(rows), _declared={}, _limits={})

    def weight_limits(self, clients: Iterable[int], factors: Mapping[int, float] | None = None) -> WeightLimits:
        """Limits on the weights of these clients' replies, times their factors, for the scale of their sum."""
        times = factors or {}
        if self.regions:
            asked = list(clients)
            uniform = self.sizes.weighting == "uniform"
            groups = ((1.0 if uniform else self.regions[c].largest, self._limits_of(c)["weight"]) for c in asked)
            counts = [self.regions[c].sites for c in asked]
            return WeightLimits.of_groups((*group, count) for group, count in zip(groups, counts, strict=True))
        return WeightLimits.of(self._limits_of(client)["weight"] * times.get(client, 1.0) for client in clients)

    def refusal(self, client: int, message: Message, sent: Message | None) -> Refusal | None:
        """The first fault of a client's reply, which is not an error; None: it may be used.

        Args:
            sent: the message it replies to.
        """
        kind = (sent or message).metadata.message_type  # not what the reply says of itself
        declared, required = self._records(kind)
        limits, sizes = self._limits_of(client), self.sizes
        content = dict(message.content.items())
        received = {} if sent is None else dict(sent.content.items())
        for key, record in content.items():
            own = declared.get(key)
            if key == names.STATE and self.stateless:
                return Refusal(key, "", "says that a state is kept, and nothing in this run keeps one")
            if own is None:
                return Refusal(clean_text(key, 60), "", "is not declared by any contract of this run")
            if _KINDS[type(record)] != own.record.kind:
                return Refusal(key, "", f"is {_KINDS[type(record)]}, declared as {own.record.kind}")
            if (found := check_declared(own, record, received.get(key), sizes, limits)) is not None:
                return found
            # A region's sum is over the sites that replied: with one of them back, its rows may become more.
            tells = (kind, key) in _MATRICES and client not in self.regions
            matrices = record if tells and isinstance(record, ArrayRecord) else None
            if matrices is not None and (found := self.told.contradiction(client, key, matrices)) is not None:
                return found
        for key in required:
            if key not in content:
                return Refusal(key, "", "is missing")
        return None

    def _records(self, message_type: str) -> tuple[dict[str, Declared], list[str]]:
        """What a reply to a message of this type may hold, by key, and the keys of what it must hold."""
        if message_type not in self._declared:
            found = {}
            for record in declared_for(message_type, list(self.contracts)):
                found[record.key] = Declared(self._with_noise(record))
            self._declared[message_type] = found, [key for key, own in found.items() if not own.record.optional]
        return self._declared[message_type]

    def _with_noise(self, record: Record) -> Record:
        """The record with ``noise`` as a number, in words of the method that declares it."""
        if record.values is None or not any(one.noise for one in record.values.values()):
            return record
        owner = next(c for c in self.contracts if any(record in group for group in (c.train, *c.queries.values())))
        values = {}
        for name, one in record.values.items():
            inverse = one.noise.startswith("1/")
            setting = (self.settings.get(owner.name) or {}).get(one.noise.removeprefix("1/"))
            scale = 0.0 if not setting else 1 / float(setting) if inverse else float(setting)
            values[name] = replace(one, noise=repr(scale) if scale else "")
        return replace(record, values=values)

    def _limits_of(self, client: int) -> dict[str, float]:
        if client not in self._limits:
            rows, validation = self.rows.get(client, (0, 0))
            found = limits_of(self.sizes, rows, validation, any(c.adds_rows for c in self.contracts))
            if own := self.regions.get(client):
                steps = self.sizes.epochs * (rows // self.sizes.batch_size + own.sites)  # each site's are rounded up
                weight = own.sites if self.sizes.weighting == "uniform" else rows
                found |= {"sites": own.sites, "least_sites": self.least_sites, "steps": steps, "weight": weight}
            self._limits[client] = found
        return self._limits[client]


def limits_of(sizes: Sizes, rows: int, validation: int, adds_rows: bool) -> dict[str, float]:
    """The limits that contracts name, for a client with so many training and validation rows."""
    weight: float = 1 if sizes.weighting == "uniform" else rows
    return {
        "rows": rows,
        "-rows": -rows,
        "validation": validation,
        "confidence": validation * UNIT,
        "squares": 2 * validation * UNIT,
        "labels": rows * (sizes.axes["C"] if sizes.multilabel or sizes.resampled else 1),
        "steps": math.inf if adds_rows else sizes.epochs * -(-rows // sizes.batch_size),
        "weight": math.inf if adds_rows and sizes.weighting == "view" else weight,
        **{f"{axis}-1": size - 1 for axis, size in sizes.axes.items()},
    }


def check_reply(
    contracts: Sequence[Contract], message: Message, sizes: Sizes, limits: Mapping[str, float], client: int = 0
) -> Refusal | None:
    """The first fault of a reply that arrives before a run's sizes are known (joining), with limits from the plan."""
    admission = Admission(contracts, {}, sizes, {})
    admission._limits[client] = dict(limits)
    return admission.refusal(client, message, None)


def check_total(what: str, total: np.ndarray, most: float, low: float = 0.0) -> None:
    """Check the sum of masked figures, which cannot be screened singly: nobody can see one.

    Args:
        total: [...] counts, opened.
        most: the most that all of them add up to.
        low: the smallest value a figure may have (below 0 with noise).

    Raises:
        RunFailed: a figure is out of range. Nobody is named, because nobody can be known to have caused it.
    """
    summed = float(np.sum(total, dtype=np.float64))
    if float(np.min(total, initial=0)) < low or summed > most:
        raise RunFailed(
            f"{what}: the opened total is out of range (smallest {float(np.min(total, initial=0)):g}, together "
            f"{summed:g}, at most {most:g} rows are held) and is discarded: at least one client sent something else "
            "than its figures. Masks hide who; resume to ask all again, or make a plan without masks to find out"
        )
