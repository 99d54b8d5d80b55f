"""Which classes each client annotates, and what its label says of a row of any other class: not "no", but "unknown".

A client that annotates only some classes (one hospital grades severity, another marks only disease) is not one that
holds no rows of the others: it holds them, and its labels do not tell. Three forms, never a negative:

- one class per row, ``unknown: masked``: rows without a known class are no training or validation rows at all, so that
  every loss, sampler and method trains on what is known (`fedimb.data.prepare` leaves them out);
- one class per row, ``unknown: coarse``: such a row stays, and its label is a *coarse label*: the set of classes that
  it may be. As a class id it is C + j, which every lookup by class refuses; ``sets[j]`` lists the classes;
- several labels per row: every cell of a class that the client does not annotate is NaN, which no loss or count takes
  for a 0. So is every single cell that the source says is unknown (`fedimb.data.labels.UNKNOWN_CELL`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.data.identifiers import Names
from fedimb.data.labels import known_cells, none_class
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.plain import JsonObject, Settings

UNKNOWN = -1
"""The value in y of a label that was not given, and in a primary class of a row without a known positive."""
RULES = ("masked", "coarse")
Kept = Literal["coarse", "cells"]
"""Unknown labels that reach training: coarse labels, or unknown cells of rows with several labels."""


@dataclass(frozen=True)
class LabelsConfig:
    """The group ``data.labels``.

    Attributes:
        annotated: client id or site name -> the classes it annotates, by name or id; who is not named annotates all.
        coarse: client id or site name -> lists of classes that it does not tell apart: one label for each list.
        unknown: ``masked`` or ``coarse``, see above; rows with several labels have cells, which are always masked.
    """

    annotated: Mapping[str, Sequence[object]] | None = None
    coarse: Mapping[str, Sequence[Sequence[object]]] | None = None
    unknown: str = "masked"

    @staticmethod
    def parse(raw: object) -> "LabelsConfig":
        """Check keys and shapes; ConfigError names the dotted key. Class names and sites are checked with the data."""
        if raw is None:
            return LabelsConfig()
        known = [f.name for f in fields(LabelsConfig)]
        if not isinstance(raw, Mapping):
            raise ConfigError(f"data.labels={raw!r}: give a mapping of {', '.join(known)}, or null")
        for key in raw:
            if key not in known:
                near = nearest(f"data.labels.{key}", [f"data.labels.{name}" for name in known])
                raise ConfigError(f"no setting 'data.labels.{key}'.{near}")
        if (unknown := raw.get("unknown", "masked")) not in RULES:
            raise ConfigError(f"data.labels.unknown: no rule '{unknown}'.{nearest(str(unknown), RULES)}")
        found: dict[str, Any] = {}
        for key in ("annotated", "coarse"):
            given = raw.get(key)
            if given is None:
                continue
            listed = isinstance(given, Mapping) and all(isinstance(one, list | tuple) and one for one in given.values())
            if not listed or (key == "coarse" and not all(_lists(one) for one in given.values())):
                what = "a list of classes" if key == "annotated" else "lists of at least two classes"
                raise ConfigError(f"data.labels.{key}={given!r}: give client ids or site names, each with {what}")
            found[key] = {str(who): one for who, one in given.items()}
        return LabelsConfig(**found, unknown=str(unknown))


def _lists(value: Sequence[object]) -> bool:
    return all(isinstance(one, list | tuple) and len(one) > 1 for one in value)


@dataclass(frozen=True, eq=False)
class ClientLabels:
    """What one client's labels can say.

    Attributes:
        seen: [C] int64, the label that it gives a row of each class: the class, or a coarse label C + j.
        sets: [J, C] bool, the classes that each coarse label may stand for; the same at all clients of a run.
        none: the class that means "no label" where rows may have several, or None.
    """

    seen: NDArray[np.int64]
    sets: NDArray[np.bool_]
    none: int | None = None

    @property
    def annotated(self) -> NDArray[np.bool_]:
        """[C] bool."""
        return np.asarray(self.seen == np.arange(len(self.seen)), np.bool_)

    def targets(self, full: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A source's targets [n, C] -> what this client knows of them: 0, 1, or NaN for an unknown cell, float32.

        The class "no label" is a row without any other: known to be 0 beside a known positive, and known to be 1 only
        where every class is annotated.
        """
        known = np.where(self.annotated, known_cells(full), np.float32(np.nan))
        if self.none is None or self.annotated.all():
            return known
        others = np.delete(known, self.none, axis=1)
        known[:, self.none] = np.where((others == 1).any(axis=1), 0.0, np.nan)
        return known

    def counted(self, known: NDArray[np.float32]) -> NDArray[np.bool_]:
        """What `targets` gives [n, C] -> over which rows each class is counted, [n, C] bool: those where it is known.

        "No label" is known to be 0 beside any known positive, but known to be 1 only beside all other cells: it is
        counted over the rows that have it and those without an unknown cell.
        """
        return counted_cells(known, self.none) & self.annotated


def counted_cells(known: NDArray[np.floating[Any]], none: int | None) -> NDArray[np.bool_]:
    """As `ClientLabels.counted`, of cells 0, 1 or NaN [n, C]; ``none``: the class "no label", if there is one."""
    found: NDArray[np.bool_] = ~np.isnan(known)
    if none is not None:
        found[:, none] = np.delete(found, none, axis=1).all(axis=1) | (known[:, none] == 1)
    return found


def over_share(known: NDArray[Any], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Known rows of each class [C] and the share of the rows of which it is known [C] -> rows as if it were of all [C].

    Right where a class is as frequent in these rows as in the others. A class that is known of none keeps its 0.
    """
    full = np.zeros(len(known))
    np.divide(known, share, out=full, where=share > 0)
    return full


@dataclass(frozen=True, eq=False)
class PartialLabels:
    """The labels of a client's own rows [n], as far as it knows them.

    Attributes:
        labels: what the client's labels say.
        seen: [n] int64 classes and coarse labels, or [n, C] float32 of 0, 1 and NaN.
        primary: [n] int64; with several labels per row the rarest known positive of each row: in the source if it is
            known, else here; `UNKNOWN` if no positive is known.
    """

    labels: ClientLabels
    seen: NDArray[Any]
    primary: NDArray[np.int64]

    @staticmethod
    def of(
        y: NDArray[np.int64], targets: NDArray[np.uint8] | None, rows: NDArray[np.int64], labels: ClientLabels
    ) -> "PartialLabels":
        """From the source's labels y and targets, of the client's ``rows``."""
        true = np.asarray(y[rows], np.int64)
        if targets is None:
            seen = labels.seen[true]
            return PartialLabels(labels, seen, seen)
        cells = labels.targets(np.asarray(targets[rows]))
        positive = cells == 1
        rarest_first = np.lexsort((np.arange(cells.shape[1]), positive.sum(axis=0)))
        first = rarest_first[positive[:, rarest_first].argmax(axis=1)]
        known = np.take_along_axis(positive, true[:, None], axis=1)[:, 0]
        return PartialLabels(labels, cells, np.where(known, true, np.where(positive.any(axis=1), first, UNKNOWN)))

    def counts(self, at: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
        """[C] int64 of the rows at these positions, by what is known of them."""
        seen = self.seen[at]
        if seen.ndim == 2:
            return np.asarray((seen == 1).sum(axis=0), np.int64)
        return np.bincount(seen[seen < n_classes], minlength=n_classes).astype(np.int64)

    def full_counts(self, at: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
        """`counts` as if every cell of these rows were known [C] float64 (`over_share`): what a prior is made of.

        Of rows with one class the same as `counts`: a client knows a class of all of its rows, or of none.
        """
        known = self.counts(at, n_classes)
        seen = self.seen[at]
        if seen.ndim == 1 or not len(seen):
            return known.astype(np.float64)
        return over_share(known, self.labels.counted(seen).sum(axis=0) / len(seen))


@dataclass(frozen=True, eq=False)
class LabelSpaces:
    """The label spaces of all clients of a federation.

    Attributes:
        seen: [K, C] int64, as `ClientLabels.seen`.
        sets: [J, C] bool.
        unknown: ``masked`` or ``coarse``.
        rows: [K] int64, rows of each client, with those that are left out because their class is unknown.
        left_out: [K] int64, how many these are; zeros where none are.
        cells: [K, C] int64, of a source with unknown cells: rows of each client of which it knows whether they have the
            class; None: all rows of the classes that it annotates. "No label" is known of a row only with all others,
            so for it these are the rows that have it and those without an unknown cell.
    """

    seen: NDArray[np.int64]
    sets: NDArray[np.bool_]
    unknown: str
    rows: NDArray[np.int64]
    left_out: NDArray[np.int64]
    cells: NDArray[np.int64] | None = None

    @property
    def annotated(self) -> NDArray[np.bool_]:
        """[K, C] bool: which client annotates which class."""
        return np.asarray(self.seen == np.arange(self.seen.shape[1]), np.bool_)

    @property
    def known_share(self) -> NDArray[np.float64]:
        """[C] share of all rows that are at clients which annotate the class, or of rows that are not left out those
        whose cell of the class is known: a class's rows are counted over these."""
        if self.cells is not None:
            kept = int((self.rows - self.left_out).sum())
            return np.asarray(self.cells.sum(axis=0) / max(kept, 1), np.float64)
        at_annotators = (self.rows[:, None] * self.annotated).sum(axis=0)
        return np.asarray(at_annotators / max(int(self.rows.sum()), 1), np.float64)

    def kept(self, task: str) -> Kept | None:
        """What of the unknown labels reaches training."""
        if task == "multilabel":
            return "cells"
        return "coarse" if self.unknown == "coarse" else None

    def of_client(self, client: int, none: int | None = None) -> ClientLabels:
        """The labels of one client."""
        return ClientLabels(self.seen[client], self.sets, none)

    def counts(self, true: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of each class at each client [K, C] -> those whose label says so [K, C]."""
        return np.where(self.annotated, true, 0)

    def full_counts(self, known: NDArray[np.float64]) -> NDArray[np.float64]:
        """Known rows of each class [C], over all clients -> rows as if every client annotated it [C].

        n_c / (share of the rows at clients that annotate c), see `over_share`.
        """
        return over_share(known, self.known_share)

    def joined(self, spans: Sequence[tuple[int, int]]) -> "LabelSpaces":
        """The label spaces of groups of consecutive clients, whose rows and known cells are added up.

        Args:
            spans: first client of each group, and the one after its last; together all clients.

        Raises:
            DataError: the clients annotate different classes, which a sum over them cannot tell.
        """
        if not self.annotated.all():
            raise DataError("clients that annotate different classes cannot be joined: leave data.labels out")

        def summed(values: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.stack([values[a:b].sum(axis=0) for a, b in spans])

        return replace(
            LabelSpaces.of_all(len(spans), self.seen.shape[1]),
            rows=summed(self.rows),
            left_out=summed(self.left_out),
            cells=None if self.cells is None else summed(self.cells),
        )

    def facts(self) -> JsonObject:
        """Plain data for partition.json."""
        return {
            "seen": self.seen.tolist(),
            "sets": self.sets.astype(int).tolist(),
            "unknown": self.unknown,
            "rows": self.rows.tolist(),
            "left_out": self.left_out.tolist(),
            **({} if self.cells is None else {"cells": self.cells.tolist()}),
        }

    @staticmethod
    def from_facts(facts: Mapping[str, Any], n_classes: int) -> "LabelSpaces":
        """From `facts`."""
        return LabelSpaces(
            seen=np.array(facts["seen"], np.int64).reshape(-1, n_classes),
            sets=np.array(facts["sets"], bool).reshape(-1, n_classes),
            unknown=str(facts["unknown"]),
            rows=np.array(facts["rows"], np.int64),
            left_out=np.array(facts["left_out"], np.int64),
            cells=np.array(facts["cells"], np.int64).reshape(-1, n_classes) if "cells" in facts else None,
        )

    @staticmethod
    def of_all(clients: int, n_classes: int) -> "LabelSpaces":
        """Every client annotates every class; what is unknown is single cells of the source."""
        zeros = np.zeros(clients, np.int64)
        seen = np.tile(np.arange(n_classes, dtype=np.int64), (clients, 1))
        return LabelSpaces(seen, np.zeros((0, n_classes), bool), "masked", zeros, zeros)


def label_spaces(
    config: LabelsConfig,
    clients: int,
    class_names: Sequence[str],
    task: str,
    sites_of: Mapping[str, Sequence[int]],
    drawn: NDArray[np.bool_] | None = None,
) -> LabelSpaces | None:
    """The label spaces that the settings declare; None if every client annotates every class.

    Args:
        config: the settings.
        clients: K.
        class_names: of the run.
        task: ``multiclass`` or ``multilabel``.
        sites_of: clients of each site, by its name.
        drawn: [K, C] bool from a partition that draws who annotates what; None: none does.

    Returns:
        With ``rows`` and ``left_out`` zero: `fedimb.data.prepare` and a deployment know them.

    Raises:
        ConfigError: unknown client, site or class, two declarations of one kind for a client, a class in two coarse
            labels, or one that is in a coarse label and annotated.
        DataError: a class that no client annotates.
    """
    n, names = len(class_names), tuple(class_names)
    none = none_class(names) if task == "multilabel" else None
    if drawn is not None and config.annotated is not None:
        raise ConfigError(
            "data.labels.annotated beside a partition that draws who annotates what: use another partition, or leave "
            "data.labels.annotated out"
        )
    if task == "multilabel" and (config.coarse is not None or config.unknown == "coarse"):
        key = "coarse" if config.coarse is not None else "unknown"
        raise ConfigError(
            f"data.labels.{key}: a coarse label is of rows with one class, but these rows may have several, whose "
            "unknown cells are masked; leave it out"
        )
    annotated = np.ones((clients, n), bool) if drawn is None else drawn.copy()
    listed: dict[int, str] = {}
    for who, classes in (config.annotated or {}).items():
        for k in clients_named(f"data.labels.annotated.{who}", who, clients, sites_of, listed):
            annotated[k] = np.isin(np.arange(n), _class_ids(f"data.labels.annotated.{who}", classes, names))
    groups: dict[int, list[list[int]]] = {}
    grouped: dict[int, str] = {}
    for who, lists in (config.coarse or {}).items():
        key = f"data.labels.coarse.{who}"
        ids = [_class_ids(key, one, names) for one in lists]
        flat = [c for one in ids for c in one]
        if twice := [names[c] for c in flat if flat.count(c) > 1]:
            raise ConfigError(f"{key}: class '{twice[0]}' is in it twice; a row has one label")
        for k in clients_named(key, who, clients, sites_of, grouped):
            if k in listed and (both := [names[c] for c in flat if annotated[k, c]]):
                raise ConfigError(
                    f"{key}: class '{both[0]}' is in it, and data.labels.annotated.{listed[k]} lists it too: a site "
                    "that tells a class apart has no coarse label for it; take it out of one of them"
                )
            groups[k] = ids
            annotated[k, flat] = False
    if none is not None:  # "no label" is known only where every other class is
        annotated[:, none] = np.delete(annotated, none, axis=1).all(axis=1)
    if annotated.all():
        return None
    if (lost := np.flatnonzero(~annotated.any(axis=0))).size and not (none is not None and lost.tolist() == [none]):
        raise DataError(
            f"no client annotates class '{names[lost[0]]}': nothing can be learned about it; let one annotate it, or "
            "leave the class out of the data"
        )
    seen, sets = _seen(annotated, groups)
    zeros = np.zeros(clients, np.int64)
    return LabelSpaces(seen, sets, config.unknown, zeros, zeros)


def labels_of_site(
    config: LabelsConfig, sites: Sequence[str], client: int, class_names: Sequence[str]
) -> ClientLabels | None:
    """What one site's labels say: at a hospital, whose rows have one class each.

    All sites are given, since a key that is one's name may be another's client id.

    Args:
        sites: names of all sites, in client-id order.
        client: the client id of this one.

    Returns:
        None if it annotates every class.

    Raises:
        ConfigError, DataError: see `label_spaces`.
    """
    by_name = {name: [k] for k, name in enumerate(sites)}
    found = label_spaces(config, len(sites), class_names, "multiclass", by_name)
    return None if found is None or found.annotated[client].all() else found.of_client(client)


def _seen(annotated: NDArray[np.bool_], groups: Mapping[int, list[list[int]]]) -> tuple[NDArray[np.int64], Any]:
    """(seen [K, C], sets [J, C]): a coarse label for every set of classes that some client does not tell apart."""
    clients, n = annotated.shape
    seen = np.tile(np.arange(n, dtype=np.int64), (clients, 1))
    numbers: dict[tuple[int, ...], int] = {}
    for k in range(clients):
        own = groups.get(k, [])
        rest = np.setdiff1d(np.flatnonzero(~annotated[k]), [c for one in own for c in one]).tolist()
        for one in [*own, *([rest] if rest else [])]:
            j = numbers.setdefault(tuple(sorted(one)), len(numbers))
            seen[k, one] = n + j
    sets = np.zeros((len(numbers), n), bool)
    for ids, j in numbers.items():
        sets[j, list(ids)] = True
    return seen, sets


def clients_named(
    key: str, who: str, clients: int, sites_of: Mapping[str, Sequence[int]], named: dict[int, str]
) -> Sequence[int]:
    """The clients of a key, which are added to those ``named`` before, by the key that names each.

    Args:
        key: dotted key, for errors.
        who: a site's name, or a client id.
        clients: K.
        sites_of: clients of each site, by its name.
        named: client id -> the key that named it; changed in place.

    Raises:
        ConfigError: there is no such client or site, or a client was named before.
    """
    if who in sites_of:
        found = sites_of[who]
    elif who.isdecimal() and int(who) < clients:
        found = [int(who)]
    else:
        known = ", ".join(sites_of) if sites_of else f"0 to {clients - 1}"
        raise ConfigError(f"{key}: there is no client or site '{who}'; give one of {known}")
    for k in found:
        if k in named:
            raise ConfigError(f"{key}: this is client {k}, as '{named[k]}' is; give each once")
        named[k] = who
    return found


def _class_ids(key: str, classes: Sequence[object], names: tuple[str, ...]) -> list[int]:
    """Class ids of a list of ids, as numbers, and of names, as text."""
    found: list[int] = []
    known = Names(names)
    for one in classes:
        number = isinstance(one, int) and not isinstance(one, bool)
        at = known.index(one) if isinstance(one, int | str) else None
        if isinstance(one, int) and number and 0 <= one < len(names):
            if at is not None and at != one:
                raise ConfigError(
                    f"{key}: {one} is the id of class '{names[one]}' and the name of another; write names as text: "
                    f"'{one}'"
                )
            found.append(one)
        elif at is not None and isinstance(one, str):
            found.append(at)
        elif at is not None and number:
            raise ConfigError(f"{key}: no class has the id {one}; write names as text: '{one}'")
        else:
            raise ConfigError(f"{key}: no class '{one}'.{nearest(str(one), names)}")
    return found


def parse_labels(data: Settings) -> LabelsConfig:
    """``data.labels`` of a `data` group."""
    return LabelsConfig.parse(data.get("labels"))
