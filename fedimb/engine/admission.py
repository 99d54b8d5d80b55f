"""Admission: every record of every reply is checked before anything uses it, with the same code on every engine.

What a record may hold is declared in its contract (`fedimb.contracts.base.Values`); how many rows a client has, how
large the model is and what it was sent is known here. A reply that breaks a declaration is left out as a whole, and its
first fault is kept with the reply as a `Refusal`.

Values that are not finite in weights are left to the lanes, because training may diverge without anybody's intent. A
masked figure cannot be screened singly: see `check_total`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from fedimb.contracts.base import Contract, Record
from fedimb.engine.record_checks import Declared, Refusal, Sizes, check_declared
from fedimb.errors import RunFailed
from fedimb.evaluation.subgroups import UNIT
from fedimb.privacy.egress_filter import declared_for
from fedimb.text import clean_text

_KINDS = {ArrayRecord: "arrays", MetricRecord: "metrics", ConfigRecord: "config"}


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
    """

    contracts: Sequence[Contract]
    settings: Mapping[str, Mapping[str, Any]]
    sizes: Sizes
    rows: Mapping[int, tuple[int, int]]
    signed: bool = True
    _declared: dict[str, tuple[dict[str, Declared], list[str]]] = field(default_factory=dict, repr=False)
    _limits: dict[int, dict[str, float]] = field(default_factory=dict, repr=False)

    def only(self, clients: Iterable[int]) -> "Admission":
        """The same for these clients alone, to be sent to another process."""
        return replace(self, rows={c: self.rows[c] for c in clients}, _declared={}, _limits={})

    def refusal(self, client: int, message: Message, sent: Message | None) -> Refusal | None:
        """The first fault of a client's reply, which is not an error; None: it may be used.

        Args:
            sent: the message it replies to.
        """
        declared, required = self._records((sent or message).metadata.message_type)  # not what the reply says of itself
        limits, sizes = self._limits_of(client), self.sizes
        content = dict(message.content.items())
        received = {} if sent is None else dict(sent.content.items())
        for key, record in content.items():
            own = declared.get(key)
            if own is None:
                return Refusal(clean_text(key, 60), "", "is not declared by any contract of this run")
            if _KINDS[type(record)] != own.record.kind:
                return Refusal(key, "", f"is {_KINDS[type(record)]}, declared as {own.record.kind}")
            if (found := check_declared(own, record, received.get(key), sizes, limits)) is not None:
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
            self._limits[client] = limits_of(self.sizes, rows, validation, any(c.adds_rows for c in self.contracts))
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
        "labels": rows * (sizes.axes["C"] if sizes.multilabel else 1),
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
