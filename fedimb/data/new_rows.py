"""Rows to predict, read in batches: with or without labels, checked against the rows a run was trained on.

A source reads such rows if it has the method `NewRows.new_rows`; the rows of any other source come from its store.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedimb import registry
from fedimb.data.identifiers import Names
from fedimb.data.inputs import Inputs
from fedimb.data.labels import UNKNOWN_CELL, complete, none_class
from fedimb.data.problems import Problems
from fedimb.data.row_settings import as_in_the_file, row_settings, shown
from fedimb.data.store import ATTRIBUTES, Store, open_source
from fedimb.data.windows import SignalFacts
from fedimb.errors import ConfigError, DataError
from fedimb.plain import Settings

UNKNOWN = -1
"""The label of a row whose class is not known."""

_MOST_ROWS = 4096
_MOST_BYTES = 32 * 1024**2  # of float32 values in a batch
_MULTIPLE = 64  # rows of a forward pass's block: batches then give the same bits as all rows at once
_MOST_PROBLEMS = 1000  # bad rows after which reading on would only list more of them


@dataclass(frozen=True, eq=False)
class RowBatch:
    """Some consecutive rows of a file.

    Attributes:
        rows: [m] int64, their numbers in the file from 0, bad rows counted.
        x: [m, *shape] uint8 or float32 as the source holds them, before any scaling.
        ids: m texts that name the rows; None if the file has none.
        labels: [m] int64 class ids, `UNKNOWN` where not known, or [m, C] uint8 of 0, 1 and
            `fedimb.data.labels.UNKNOWN_CELL` if rows have several labels; None if the file has no labels.
    """

    rows: NDArray[np.int64]
    x: NDArray[Any]
    ids: tuple[str, ...] | None = None
    labels: NDArray[np.integer] | None = None


@dataclass
class Expected:
    """What new rows must look like, and how the user names their columns.

    Attributes:
        inputs, class_names, task: of the run.
        id_column: of a table: its ids; None: none.
        ignored: further columns of a table that are left out.
        notes: filled while reading: what was done to fit the rows, for the user to know.
    """

    inputs: Inputs
    class_names: tuple[str, ...]
    task: str
    id_column: str | None = None
    ignored: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def several(self) -> bool:
        """Whether rows may have several labels."""
        return self.task == "multilabel"

    @cached_property
    def names(self) -> Names:
        """The run's classes, found by identifier."""
        return Names(self.class_names)

    def class_id(self, name: str) -> int:
        """The id of a class, in any spelling. DataError if the run has no such class."""
        if (known := self.names.index(name)) is None:
            raise DataError(f"label '{name}' is not a class of the run ({', '.join(self.class_names[:12])})")
        return known

    def targets(self, found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Columns of 0, 1 and unknown [m, C or C - 1] -> [m, C]: rows without a label get the class that means none, if
        there is one.

        Raises:
            DataError: another number of columns.
        """
        width = len(self.class_names)
        if found.shape[1] != width and none_class(self.class_names) != found.shape[1]:
            raise DataError(f"labels have {found.shape[1]} columns for the run's {width} classes: give one each")
        return complete(found, self.class_names)[1][:, :width]


@runtime_checkable
class NewRows(Protocol):
    """A source that reads rows to predict."""

    def fingerprint(self) -> str:
        """As of any source."""

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """Batches of at most `batch_rows` rows, in the order of the file. Labels are read where there are any.

        Raises:
            DataError: the file cannot be read, or its columns are not the run's. Bad rows go to ``problems``.
        """


def batch_rows(shape: tuple[int, ...]) -> int:
    """Rows of a batch: at most 4096, and at most 32 MiB of float32, in multiples of 64."""
    fitting = _MOST_BYTES // (4 * max(1, math.prod(shape))) // _MULTIPLE * _MULTIPLE
    return max(_MULTIPLE, min(_MOST_ROWS, fitting))


def open_new_rows(
    source: Settings, expected: Expected, on_bad: str = "refuse"
) -> tuple[Iterator[RowBatch], Callable[[], str], Problems]:
    """Rows of ``{name: <source>, **args}``, a function for the source's fingerprint, and where bad rows are noted.

    Nothing is read before the first batch. `settle` the problems after the last one.

    Raises:
        ConfigError: unknown source or argument, or one that reads no rows without labels.
        DataError: the source cannot be read.
    """
    problems = Problems(on_bad, "--on-bad skip", _MOST_PROBLEMS)
    args = {key: value for key, value in source.items() if key not in ("name", "on_bad", ATTRIBUTES)}
    if not isinstance(name := source.get("name"), str):
        raise ConfigError("a source needs a name, for example --source name=npz path=new.npz")
    made = registry.build("source", name, given={"on_bad": on_bad}, **args)
    check_row_settings(f"source '{name}'", row_settings(source), expected)
    if isinstance(made, NewRows):
        return made.new_rows(expected, problems), made.fingerprint, problems
    if expected.id_column or expected.ignored:
        raise ConfigError(f"source '{name}' has no columns to name: leave out --id and --drop")
    store = open_source(source | {"on_bad": on_bad})
    return store_batches(store, np.arange(len(store)), expected), lambda: store.fingerprint, problems


def store_batches(store: Store, rows: NDArray[np.int64], expected: Expected) -> Iterator[RowBatch]:
    """Rows of a store, with its labels.

    Raises:
        DataError: the store's classes or task are not the run's.
    """
    if store.task != expected.task:
        raise DataError(
            f"the data are {store.task}, the run's are {expected.task}: rows of one label, or of several, in both"
        )
    if store.targets is None:
        check_classes(store.class_names, expected.class_names)
    if store.signal is not None:
        check_signal("the data", store.signal, expected)
    check_encoder("the data", store.encoder, expected)
    at_once = batch_rows(store.input_shape)
    for start in range(0, len(rows), at_once):
        held = rows[start : start + at_once]
        if store.targets is None:
            labels: NDArray[np.integer] = np.array(store.y[held], dtype=np.int64)
        else:
            labels = fitted_targets(store, held, expected.class_names)
        yield RowBatch(held, np.asarray(store.x[held]), None, labels)


def check_signal(place: str, found: SignalFacts, expected: Expected) -> None:
    """Refuse signals to predict whose rate or channels are not those a model was trained on.

    Raises:
        DataError: they differ. Where one side does not say, a note tells it.
    """
    wanted = expected.inputs.signal
    if wanted is None:
        return
    if found.rate_hz is None or wanted.rate_hz is None:
        if found.rate_hz != wanted.rate_hz:
            known = f"{found.rate_hz or wanted.rate_hz:g} Hz"
            which = "the run's rows" if found.rate_hz is None else "these"
            expected.notes.append(
                f"{place}: only {which} say their sampling rate ({known}): it is taken to be the same"
            )
    elif abs(found.rate_hz - wanted.rate_hz) > 1e-6 * wanted.rate_hz:
        raise DataError(
            f"{place} has {found.rate_hz:g} Hz, the run was trained on {wanted.rate_hz:g} Hz: give resample_hz="
            f"{wanted.rate_hz:g}"
        )
    if found.channels and wanted.channels and found.channels != wanted.channels:
        raise DataError(
            f"{place} has channels {', '.join(found.channels)}, the run was trained on {', '.join(wanted.channels)}: "
            "give these, in that order"
        )


def check_encoder(place: str, found: str | None, expected: Expected) -> None:
    """Refuse embeddings to predict that another encoder made than those a model was trained on.

    Raises:
        DataError: they differ. Where one side does not say, a note tells it.
    """
    wanted = expected.inputs.encoder
    if found is None or wanted is None:
        if found != wanted:
            which = "the run's rows" if found is None else "these"
            expected.notes.append(
                f"{place}: only {which} say what embedded them ({found or wanted}): it is taken to be the same"
            )
    elif found != wanted:
        raise DataError(
            f"{place} was embedded by '{found}', the run was trained on rows of '{wanted}': embed the rows with that"
        )


def check_row_settings(place: str, found: Settings, expected: Expected) -> None:
    """Refuse rows to predict that are read with other settings than those a model was trained on.

    Args:
        place: names the rows in messages.
        found: as `fedimb.data.row_settings.row_settings` gives them; empty for an array.

    Raises:
        DataError: one differs. Where only one side has the setting and uses it, a note tells it.
    """
    wanted = expected.inputs.row_settings
    for key in dict.fromkeys([*wanted, *found]):
        if key in wanted and key in found:
            if wanted[key] != found[key]:
                remedy = f"{key}={shown(wanted[key])}"
                raise DataError(
                    f"{place} reads rows with {key}={shown(found[key])}, the run was trained on rows read with "
                    f"{remedy}: give {remedy} (data.source.{key}=... where data=... is given)"
                )
            continue
        value = wanted.get(key, found.get(key))
        if not as_in_the_file(key, value):
            which = "the run's rows were" if key in wanted else "these rows are"
            expected.notes.append(
                f"{place}: only {which} read with {key}={shown(value)}: the others are taken to be made alike"
            )


def check_classes(given: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """Refuse data whose class list is not the run's, name by name and in order: a score column means a class."""
    if tuple(given) == tuple(wanted):
        return
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    facts = [f"missing: {', '.join(missing)}"] if missing else []
    facts += [f"unknown to the run: {', '.join(unknown)}"] if unknown else []
    if not facts:
        at = next(i for i, (a, b) in enumerate(zip(given, wanted, strict=True)) if a != b)
        facts = [f"same names in another order: class {at} is '{given[at]}', in the run '{wanted[at]}'"]
    raise DataError(
        f"the data's classes are not the run's ({'; '.join(facts)}); give the run's class list, in its order"
    )


def fitted_targets(store: Store, rows: NDArray[np.int64], wanted: tuple[str, ...]) -> NDArray[np.uint8]:
    """Targets [n, C] uint8 of ``rows`` in the run's classes, of data with several labels per row.

    The last class may be missing on either side where it means "none of them": whether a file has it depends on
    whether it has a row without a label.

    Raises:
        DataError: other classes (see `check_classes`).
    """
    given, targets = store.class_names, np.asarray(store.targets)[rows]
    if wanted[:-1] == given and none_class(wanted) == len(given):
        partly = (targets == UNKNOWN_CELL).any(axis=1) & ~(targets == 1).any(axis=1)
        return np.column_stack([targets, np.where(partly, UNKNOWN_CELL, 0).astype(np.uint8)])
    if given[:-1] == wanted and none_class(given) == len(wanted):
        return np.ascontiguousarray(targets[:, :-1])
    check_classes(given, wanted)
    return targets
