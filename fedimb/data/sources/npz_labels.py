"""Labels and sites of an .npz file: the values that are there, and the class (or site) that each of them means."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.data.identifiers import Names, identifier, in_order, is_whole, names_nobody, no_label_marks
from fedimb.data.labels import UNKNOWN_CELL, check_row, complete, none_class
from fedimb.data.problems import IGNORED as NOT_A_CLASS
from fedimb.data.problems import Problems
from fedimb.data.sources.cell_map import BAD_CELL, CellMap, Cells, remedy
from fedimb.data.sources.npz_file import NpzFile, as_ids, per_row
from fedimb.errors import ConfigError, DataError

Value = int | float | str
NameList = list[str] | dict[int | str, str]
LabelKind = Literal["ids", "onehot", "several"]
BAD, IGNORED = -1, -2
_MOST = 100_000  # distinct labels: more are patient numbers or hashes, not classes
_SHOWN = 8


@dataclass(frozen=True)
class LabelRule:
    """How the labels of a file become classes.

    Args:
        source: name of the source, for messages.
        class_names: a list in the order of the class ids, or id -> name; None: the ids found name the classes.
        label_map: label -> class name, where several labels may mean one class.
        ignore_label: label (or labels) of rows that have no class: these rows are left out.
        labels: ``ids``, ``onehot`` or ``several`` (a row may have several classes); None: by the array's shape.
        cell_map: of several labels per row: what values other than 0 and 1 mean (`fedimb.data.sources.cell_map`).

    Raises:
        ConfigError: settings that contradict each other.
    """

    source: str
    class_names: NameList | None = None
    label_map: dict[int | str, str] | None = None
    ignore_label: Value | list[Value] | None = None
    labels: LabelKind | None = None
    cell_map: Cells | None = None

    def __post_init__(self) -> None:
        if self.cell_map is not None and (self.labels in ("ids", "onehot") or self.mapping is not None or self.ignored):
            raise ConfigError(
                f"source '{self.source}': cell_map is for columns of 0 and 1, several labels per row; leave it out, or "
                "leave labels, label_map and ignore_label out"
            )
        _ = self.cells  # refuses a map that is none
        for setting in ("class_names", "label_map"):
            given = getattr(self, setting)
            if given is not None and (not given or len({identifier(key) for key in given}) < len(given)):
                raise ConfigError(f"source '{self.source}': {setting}={given}: give each once, at least one")
        if self.label_map is not None and isinstance(self.class_names, dict):
            raise ConfigError(f"source '{self.source}': class_names names ids as label_map does: give only one of them")
        if isinstance(self.class_names, dict) and len(set(self.class_names.values())) < len(self.class_names):
            raise ConfigError(f"source '{self.source}': class_names has a name twice; merge classes with label_map")
        if self.mapping is not None and (both := self.ignored & {identifier(key) for key in self.mapping}):
            raise ConfigError(f"source '{self.source}': ignore_label={min(both)} is also named as a class; choose one")
        if self.labels == "several" and (self.mapping is not None or self.ignored):
            raise ConfigError(
                f"source '{self.source}': labels=several takes class_names as a list, one per column, and no label_map "
                "or ignore_label"
            )

    @property
    def cells(self) -> CellMap:
        """What the cells of several labels mean."""
        return CellMap(self.source, self.cell_map)

    @property
    def ignored(self) -> set[str]:
        """Identifiers of the labels that mean no class."""
        given = self.ignore_label
        return set(map(identifier, given if isinstance(given, (list, tuple)) else [] if given is None else [given]))

    @property
    def mapping(self) -> Mapping[int | str, str] | None:
        """Label -> class name, if the settings say it."""
        return self.label_map if self.label_map is not None else self.name_map

    @property
    def name_map(self) -> dict[int | str, str] | None:
        """``class_names``, if it names ids."""
        return self.class_names if isinstance(self.class_names, dict) else None

    def with_names(self, names: list[str] | None) -> "LabelRule":
        """The rule with the file's own ``class_names``, unless the settings give some."""
        if names is None or self.class_names is not None:
            return self
        if len(set(map(identifier, names))) < len(names):
            raise DataError(f"class_names {names} of the file must be distinct; give class_names=[...]")
        return LabelRule(self.source, names, self.label_map, self.ignore_label, self.labels, self.cell_map)


@dataclass(frozen=True)
class Column:
    """The values of one array, one per row.

    Attributes:
        place: path and array, for messages.
        of_row: [n] int64 into ``keys``; `BAD` and `IGNORED` for rows without a usable value.
        keys: identifiers.
        text: whether the array holds text.
        every: whether all of ``keys`` are declared by the array itself (columns), with rows or not.
    """

    place: str
    of_row: NDArray[np.int64]
    keys: tuple[str, ...]
    text: bool
    every: bool = False

    def found(self, good: NDArray[np.bool_]) -> set[str]:
        """The values of the rows of ``good`` [n]."""
        if self.every:
            return set(self.keys)
        used = np.unique(self.of_row[good])
        return {self.keys[at] for at in used[used >= 0].tolist()}


@dataclass(frozen=True)
class Meaning:
    """What values mean.

    Attributes:
        names: of the classes (or sites), by id.
        of: identifier -> id.
        wrong: identifier -> why it means none.
    """

    names: tuple[str, ...]
    of: dict[str, int]
    wrong: dict[str, str] = field(default_factory=dict)

    def label_names(self) -> dict[str, str] | None:
        """Identifier -> name, to read new rows; None where the identifiers are the names, or the positions from 0."""
        by_position = all(key == str(at) for key, at in self.of.items())
        by_name = all(identifier(self.names[at]) == key and not is_whole(key) for key, at in self.of.items())
        return None if by_position or by_name else {key: self.names[at] for key, at in self.of.items()}


def read_column(
    arrays: NpzFile,
    key: str,
    good: NDArray[np.bool_],
    problems: Problems,
    what: str = "label",
    ignored: Iterable[str] = (),
    onehot: bool = False,
) -> Column:
    """The values of array ``key`` [n] (or [n, C], one-hot). Unusable ones of rows in ``good`` go to ``problems``.

    Args:
        what: ``label`` or ``site``, for messages.
        ignored: identifiers of values that mean none.
        onehot: the array is [n, C] with a single 1 in each row, the column of its class.

    Raises:
        DataError: neither numbers nor text, or another shape.
    """
    place = f"{arrays.path} {key}"
    if onehot:
        return _onehot(arrays, key, good, problems)
    raw: NDArray[Any] = per_row(arrays, key, len(good))
    if raw.dtype.kind not in "iubfUS":
        noun = "class" if what == "label" else what
        raise DataError(f"{place} is {raw.dtype}; give {noun} ids as integers, or names as text")
    if raw.dtype.kind == "b":
        raw = raw.astype(np.uint8)
    text = raw.dtype.kind in "US"
    distinct, of_row = np.unique(raw, return_inverse=True)
    keys: dict[str, int] = {}
    number, reasons, leave = np.full(len(distinct), BAD), {}, set(ignored)
    for at, value in enumerate(distinct):
        try:
            known = _usable(value, what)
        except DataError as error:
            reasons[at] = str(error)
            continue
        number[at] = IGNORED if known in leave else keys.setdefault(known, len(keys))
    of_row = of_row.reshape(-1)
    for row in np.flatnonzero(good & np.isin(of_row, list(reasons))) if reasons else ():
        problems.add(f"{place}[{row}]", f"{what} {raw[row].item()!r} {reasons[int(of_row[row])]}")
    if what != "patient" and len(keys) > _MOST:
        raise DataError(f"{place} holds {len(keys):,} different values, too many for {what}s: are these ids of rows?")
    return Column(place, number[of_row], tuple(keys), text)


def _usable(value: np.generic, what: str) -> str:
    """The identifier of one value. DataError says why there is none."""
    if isinstance(value, (np.str_, np.bytes_)):
        if not value:
            raise DataError("is empty")
        if what == "patient" and names_nobody(identifier(value)):
            raise DataError("names nobody: give each patient an id")
    elif not np.isfinite(value) or value != np.floor(value):
        raise DataError(f"is not a {'class' if what == 'label' else what} id: give whole numbers")
    try:
        return identifier(value)
    except DataError as error:
        raise DataError(f"cannot be used: {error}") from None


def _onehot(arrays: NpzFile, key: str, good: NDArray[np.bool_], problems: Problems) -> Column:
    raw: NDArray[Any] = arrays[key]
    place = f"{arrays.path} {key}"
    if raw.ndim != 2 or len(raw) != len(good) or raw.shape[1] < 2 or raw.dtype.kind not in "iubf":
        raise DataError(
            f"{place} is {raw.dtype} {list(raw.shape)} beside {len(good)} rows; labels=onehot reads numbers [n, C], "
            "one column per class"
        )
    single = ((raw == 0) | (raw == 1)).all(axis=1) & ((raw == 1).sum(axis=1) == 1)
    for row in np.flatnonzero(good & ~single):
        problems.add(f"{place}[{row}]", "is not one-hot: give a single 1 and zeros, or labels=several")
    of_row = np.where(single, (raw == 1).argmax(axis=1), BAD).astype(np.int64)
    return Column(place, of_row, tuple(map(str, range(raw.shape[1]))), text=False, every=True)


def read_several(
    arrays: NpzFile,
    key: str,
    good: NDArray[np.bool_],
    class_names: list[str] | None,
    problems: Problems,
    cells: CellMap | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Labels [n, C] uint8, one column per class, and [n] bool: rows of ``good`` where they are usable.

    They are 0, 1, and `fedimb.data.labels.UNKNOWN_CELL` where ``cells`` says so.

    Raises:
        DataError: not numbers [n, C], or columns that do not match the class list.
    """
    raw: NDArray[Any] = arrays[key]
    if raw.ndim != 2 or len(raw) != len(good) or raw.dtype.kind not in "iubf":
        raise DataError(f"{arrays.path} {key} is {raw.dtype} {list(raw.shape)}; give 0 and 1, one column per class")
    names = class_names if class_names is not None else [str(c) for c in range(raw.shape[1])]
    complete(np.zeros((0, raw.shape[1]), np.uint8), names)  # refuses names that do not match the columns
    try:
        targets = (cells or CellMap("npz", None)).of_array(names[: raw.shape[1]], raw)
    except DataError as error:
        raise DataError(f"{arrays.path} {key}: {error}") from None
    usable = good & (targets != BAD_CELL).all(axis=1)
    for row in np.flatnonzero(good & ~usable):
        c = int(np.flatnonzero(targets[row] == BAD_CELL)[0])
        value = raw[row, c].item()
        hint = "" if cells is None else remedy(value)
        problems.add(f"{arrays.path} {key}[{row}]", f"{value!r} in column {c} is neither 0 nor 1{hint}")
    targets[targets == BAD_CELL] = UNKNOWN_CELL  # of rows that are not used
    none = none_class(names)
    if none is not None and none < raw.shape[1]:
        for row in np.flatnonzero(usable & (targets[:, none] == 1) & ((targets == 1).sum(axis=1) > 1)):
            at = f"{arrays.path} {key}[{row}]"
            problems.guard(at, partial(check_row, [names[c] for c in np.flatnonzero(targets[row] == 1)]))
            usable[row] = False
    return targets, usable


def kind_of(arrays: NpzFile, key: str, n: int, labels: LabelKind | None) -> LabelKind:
    """How array ``key`` beside ``n`` rows holds labels: as the setting says, else by its shape."""
    if labels is not None:
        return labels
    raw = arrays[key]
    return "several" if raw.ndim == 2 and len(raw) == n and raw.shape[1] > 1 else "ids"


def find_meaning(
    columns: Sequence[Column],
    found: Iterable[str],
    names: NameList | None,
    label_map: Mapping[int | str, str] | None = None,
    what: str = "label",
) -> Meaning:
    """Which class each value found means.

    With a map (``label_map``, or names by id): what it says; classes are in the order of its ids, and may have no rows.
    Without names: the values found, in order, name the classes. With a list of names:

    - values that are among the names are those classes;
    - whole numbers from 0 to C - 1 are positions in the list;
    - C other whole numbers are named in order.

    Args:
        columns: of all parts of the file.
        found: values of their good rows.
        names: class names.
        label_map: value -> class name; with ``names`` as a list, the order of the classes.
        what: ``label``, or ``site``: these have no marks for "none".

    Raises:
        DataError: a list of names that can be read in two ways.
    """
    place, text = columns[0].place, columns[0].text
    values = in_order(found)
    mapping = label_map if label_map is not None else names if isinstance(names, dict) else None
    every = any(column.every for column in columns)
    if mapping is not None:
        if every and (odd := sorted({identifier(key) for key in mapping} ^ set(values))):
            raise DataError(
                f"{place} has columns 0 to {len(values) - 1}, which class_names or label_map do not name one by one "
                f"({odd[0]} is on one side only): name each, counted from 0"
            )
        return _by_map(values, mapping, names if isinstance(names, list) else None)
    setting = "class_names" if what == "label" else "site_names"
    lacks = "is not in class_names" if what == "label" else "is not known; see site_names"
    if what == "site":
        marks = {value: lacks for value in values if value.startswith("-") and is_whole(value)}
    else:
        marks = {} if every else _marks(values)
    values = [value for value in values if value not in marks]
    if names is None:
        return Meaning(tuple(values), {value: at for at, value in enumerate(values)}, marks)
    assert isinstance(names, list)
    known = Names(names)
    if text or (values and not every and all(value in known for value in values)):
        wrong = {value: lacks for value in values if value not in known}
        return Meaning(
            tuple(names), {value: at for value in values if (at := known.index(value)) is not None}, marks | wrong
        )
    positions = {str(at): at for at in range(len(names))}
    if set(values) <= set(positions) and (not values or "0" in values or len(names) == 1):
        return Meaning(tuple(names), positions, marks)
    if len(values) == len(names):
        return Meaning(tuple(names), {value: at for at, value in enumerate(values)}, marks)
    if "0" in values:
        reason = f"is not a {'class' if what == 'label' else what} id: give whole numbers from 0 to {len(names) - 1}"
        return Meaning(tuple(names), positions, marks | {value: reason for value in values if value not in positions})
    shown = ", ".join(values[:_SHOWN]) + (", ..." if len(values) > _SHOWN else "")
    raise DataError(
        f"{place} holds the ids {shown}, and {setting} lists {len(names)} names: it does not follow which is which; "
        f"say it as {setting}={{{values[0] if values else 0}: {names[0]}, ...}}, with every id, also one without rows"
    )


def _by_map(values: list[str], mapping: Mapping[int | str, str], order: list[str] | None) -> Meaning:
    of_label = {identifier(label): str(name) for label, name in mapping.items()}
    names = list(dict.fromkeys(of_label[label] for label in in_order(of_label)))
    if order is not None:
        if set(order) != set(names):
            odd = sorted(set(order) ^ set(names))[0]
            raise DataError(f"class '{odd}' is in only one of class_names and label_map; give the same classes in both")
        names = order
    listed = ", ".join(list(of_label)[:_SHOWN])
    wrong = {
        value: f"is not named ({listed}); name it, or give ignore_label" for value in values if value not in of_label
    }
    return Meaning(tuple(names), {label: names.index(name) for label, name in of_label.items()}, wrong)


def _marks(values: Sequence[str]) -> dict[str, str]:
    """Why an id that looks like a mark for "no label" is not taken for a class."""
    return {
        mark: f"{reason}: give ignore_label={mark}, or, if it is a class, class_names={{{mark}: name, ...}}"
        for mark, reason in no_label_marks(values).items()
    }


def apply_meaning(
    column: Column, meaning: Meaning, good: NDArray[np.bool_], problems: Problems, what: str = "label"
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """([n] int64 class or site ids, [n] bool rows of ``good`` that have one); the others go to ``problems``.

    Rows whose value is to be ignored are left out without being bad.
    """
    of_key = np.array([meaning.of.get(key, BAD) for key in column.keys] + [IGNORED, BAD], dtype=np.int64)
    ids = of_key[column.of_row]  # -1 and -2 are the last two
    for key, reason in meaning.wrong.items():
        if key in column.keys:
            for row in np.flatnonzero(good & (column.of_row == column.keys.index(key))):
                problems.add(
                    f"{column.place}[{row}]", f"{what} {key!r} {reason}" if column.text else f"{what} {key} {reason}"
                )
    for row in np.flatnonzero(good & (column.of_row == IGNORED)):
        problems.leave_out(f"{column.place}[{row}]", NOT_A_CLASS)
    return ids, good & (ids >= 0)


def read_labels(
    arrays: NpzFile, key: str, good: NDArray[np.bool_], class_names: list[str] | None, problems: Problems
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The labels of a single array, for sources of other packages: class names [n], or targets [n, C] uint8, and usable
    rows [n] bool. See `class_ids`."""
    if kind_of(arrays, key, len(good), None) == "several":
        return read_several(arrays, key, good, class_names, problems)
    column = read_column(arrays, key, good, problems)
    good = good & (column.of_row >= 0)
    meaning = find_meaning([column], column.found(good), class_names)
    ids, good = apply_meaning(column, meaning, good, problems)
    return np.array([*meaning.names, ""])[np.maximum(ids, -1)], good


def class_ids(
    found: NDArray[Any], names: list[str] | None
) -> tuple[NDArray[np.int64], NDArray[np.uint8] | None, tuple[str, ...]]:
    """The usable rows of `read_labels` in the form of `SourceData`: (y, targets or None, class names)."""
    if found.ndim == 2:
        return complete(found, names if names is not None else [str(c) for c in range(found.shape[1])])
    y, class_names = as_ids(found, names)
    return y, None, class_names
