"""What a source returns: one checked set of arrays in memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.findings.finding import Finding
from fedimb.data.identifiers import identifier
from fedimb.data.inputs import TableColumns
from fedimb.data.labels import UNKNOWN_CELL
from fedimb.data.windows import SignalFacts
from fedimb.errors import DataError

_CHUNK = 1 << 22  # values checked per step of the NaN scan: 16 MiB of float32
TASKS = ("multiclass", "multilabel")
PATIENTS = "patients"
_MISSING = ("", "?", "NA")


@dataclass(frozen=True, eq=False)
class AttributeColumn:
    """A column that rows are grouped by (`fedimb.data.subgroups`).

    Attributes:
        values: the distinct values, as identifiers.
        codes: [n] int32 into ``values``; -1 where the value is missing.
    """

    values: tuple[str, ...]
    codes: NDArray[np.int32]

    @staticmethod
    def of(values: Iterable[object], missing: frozenset[str] = frozenset()) -> "AttributeColumn":
        """From the value of each row: None, NaN, '', '?', 'NA' and those of ``missing`` (identifiers) are missing.

        Raises:
            DataError: see `fedimb.data.identifiers.identifier`.

        Example:
            >>> AttributeColumn.of(["f", "m", "", "f", None]).codes.tolist()
            [0, 1, -1, 0, -1]
        """
        known: dict[str, int] = {}
        spelled: dict[object, int] = {}
        codes = []
        for value in values:
            kept = value if isinstance(value, str) else None  # 1, 1.0 and True are equal as keys of a dict
            code = None if kept is None else spelled.get(kept)
            if code is None:
                text = None if value is None or value != value else identifier(value)
                absent = text is None or text.strip() in _MISSING or text in missing
                code = -1 if absent or text is None else known.setdefault(text, len(known))
                if kept is not None:
                    spelled[kept] = code
            codes.append(code)
        return AttributeColumn(tuple(known), np.array(codes, dtype=np.int32))


def attribute_columns_of(
    names: Sequence[str], rows: Sequence[Sequence[object]], missing: Mapping[str, frozenset[str]] | None = None
) -> dict[str, AttributeColumn]:
    """The columns ``names`` from the values of each row; ``missing``: column -> identifiers that mean missing."""
    marks = missing or {}
    return {
        name: AttributeColumn.of((row[i] for row in rows), marks.get(name, frozenset())) for i, name in enumerate(names)
    }


@dataclass(frozen=True, eq=False)
class SourceData:
    """The arrays of one source, checked on creation. The model gets ``x * scale`` as float32.

    Args:
        x: [n, *shape] uint8 or float32, finite; of long recordings a `fedimb.data.windows.Windows`.
        y: [n] int64 class ids, 0 <= y < len(class_names).
        class_names: one distinct name per class id. A class may have no rows.
        scale: > 0; digits are uint8 0..16 with scale 1/16.
        sites: [n] int64 ids into ``site_names``, or None if the source has no sites.
        site_names: one name per site id.
        patients: [n] int64, any ids; rows of one patient are never split up. None: every row is independent.
        official_test: [n] bool, True for rows of the source's own test set; None if it has none.
        task: "multiclass", or "multilabel" if ``targets`` are given.
        skipped: bad rows that were skipped (`fedimb.data.problems`), one line each: place and reason.
        scaled: [F] bool for tables x [n, F]: columns to centre and scale by the training rows' own mean and
            deviation, once the clients are cut (`fedimb.data.scaling`). They may hold NaN: missing, imputed with that
            mean. Signals [n, channels, length] and spectrograms of them have one bool per channel, [channels, 1] or
            [channels, 1, 1]: a channel is scaled by all its samples. None: x is used as it is.
        targets: [n, C] uint8 of 0, 1 and `fedimb.data.labels.UNKNOWN_CELL`, not only 0 in any row, if rows have several
            labels; ``y`` is then one of the row's labels, its primary class, or, of a row without a known one, a class
            that is unknown (`fedimb.data.labels`, which makes both). None: ``y`` alone is the label.
        times: [n] datetime64[us] (UTC, or without a zone), or int64 numbers that order the rows in time; None if the
            source has none.
        row_ids: [n] text, one distinct id per row that another tool finds it by, such as an image's file name; None:
            rows are known by their number. Never a patient's id.
        columns: of a table, the columns and categories behind x, so that a model finds them in another file by name.
            None: columns of x have no names.
        label_names: label in the files -> class name, to read the labels of new rows; None where labels are the names
            or the ids.
        findings: what only the source can see, as in the text of a file; `fedimb.data.findings.look` adds the rest.
        attributes: the columns that ``data.subgroups`` names, by name.
        signal: of windows of signals, or spectrograms of them: rate and channels. None: x is not one.
        recordings: [n] int64, the recording of each window; None: not known.
        origins: [n] int64, the first sample of each window in its recording; None: not known.
        encoder: of embeddings: what made them, such as a model's name and revision; None: not known, or x is not one.
        units: what the ids of ``patients`` are, in the plural: "patients", or "groups of overlapping windows" where
            only these are known to belong together.

    Raises:
        DataError: with the row and the remedy.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    class_names: tuple[str, ...]
    scale: float = 1.0
    sites: NDArray[np.int64] | None = None
    site_names: tuple[str, ...] = ()
    patients: NDArray[np.int64] | None = None
    official_test: NDArray[np.bool_] | None = None
    task: str = "multiclass"
    skipped: tuple[str, ...] = ()
    scaled: NDArray[np.bool_] | None = None
    targets: NDArray[np.uint8] | None = None
    columns: TableColumns | None = None
    times: NDArray[Any] | None = None
    row_ids: NDArray[np.str_] | None = None
    label_names: dict[str, str] | None = None
    findings: tuple[Finding, ...] = ()
    attributes: Mapping[str, AttributeColumn] = field(default_factory=dict)
    signal: SignalFacts | None = None
    recordings: NDArray[np.int64] | None = None
    origins: NDArray[np.int64] | None = None
    units: str = PATIENTS
    encoder: str | None = None

    def __post_init__(self) -> None:
        n = len(self.x)
        if n == 0:
            raise DataError("the source has no rows; check the path and the row filter")
        if self.x.dtype not in (np.uint8, np.float32) or self.x.ndim < 2:
            raise DataError(f"x is {self.x.dtype} {list(self.x.shape)}; give uint8 or float32 of shape [n, *shape]")
        if self.task not in TASKS:
            raise DataError(f"task '{self.task}' is not known; use {' or '.join(TASKS)}")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise DataError(f"scale is {self.scale}; give a finite number above 0")
        _check_names("class", self.class_names)
        _check_column("y", self.y, n, np.int64)
        _check_ids("label", self.y, "class list", len(self.class_names))
        if (self.task == "multilabel") != (self.targets is not None):
            raise DataError(
                f"task '{self.task}' {'without' if self.targets is None else 'with'} targets [n, C]: "
                "multilabel data need them, multiclass data must not have them"
            )
        if self.targets is not None:
            _check_targets(self.targets, self.y, len(self.class_names))
        if self.sites is not None:
            _check_names("site", self.site_names)
            _check_column("sites", self.sites, n, np.int64)
            _check_ids("site", self.sites, "site list", len(self.site_names))
        elif self.site_names:
            raise DataError("site_names are given without sites; give the site id of each row")
        if self.patients is not None:
            _check_column("patients", self.patients, n, np.int64)
        if self.official_test is not None:
            _check_column("official_test", self.official_test, n, np.bool_)
        _check_times(self.times, n)
        _check_row_ids(self.row_ids, n)
        if self.scaled is not None and (self.x.dtype != np.float32 or self.scaled.shape != _per_column(self.x.shape)):
            raise DataError(
                f"scaled is {list(self.scaled.shape)} beside x {self.x.dtype} {list(self.x.shape)}: "
                "give one bool per column of a float32 table, [channels, 1] for signals [n, channels, length]"
            )
        self._check_signal(n)
        if self.columns is not None and (len(self.columns.inputs),) != self.x.shape[1:]:
            raise DataError(f"columns name {len(self.columns.inputs)} inputs beside x {list(self.x.shape)}; name each")
        for name, column in self.attributes.items():
            _check_column(f"attribute '{name}'", column.codes, n, np.int32)
        _check_finite(self.x, self.scaled)

    def _check_signal(self, n: int) -> None:
        """Refuse signals whose facts do not fit x."""
        for name in ("recordings", "origins"):
            if (column := getattr(self, name)) is not None:
                _check_column(name, column, n, np.int64)
        if self.signal is None:
            return
        channels = self.signal.channels
        if self.x.ndim not in (3, 4) or (channels and len(channels) != self.x.shape[1]):
            raise DataError(
                f"x is {list(self.x.shape)} with channels {list(channels)}; give signals [n, channels, length]"
            )
        if channels:
            _check_names("channel", channels)


def _per_column(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what is known per column of a table, or per channel of signals."""
    return shape[1:] if len(shape) == 2 else (shape[1], *[1] * (len(shape) - 2))


def _check_names(what: str, names: tuple[str, ...]) -> None:
    if not names or len(set(map(identifier, names))) != len(names):
        raise DataError(f"{what} names {list(names)} must be distinct (1 and 1.0 are one) and at least one")


def _check_column(name: str, column: NDArray[np.generic], n: int, dtype: type) -> None:
    if column.shape != (n,) or column.dtype != dtype:
        raise DataError(
            f"{name} is {column.dtype} {list(column.shape)} beside {n} rows of x; give one {np.dtype(dtype)} per row"
        )


def _check_times(times: NDArray[np.generic] | None, n: int) -> None:
    if times is None:
        return
    if times.shape != (n,) or times.dtype not in (np.dtype("datetime64[us]"), np.int64):
        raise DataError(
            f"times is {times.dtype} {list(times.shape)} beside {n} rows of x; give datetime64[us] or int64"
        )
    if (missing := np.flatnonzero(np.isnat(times)) if times.dtype.kind == "M" else times[:0]).size:
        raise DataError(f"row {missing[0]}: the time is missing; give each row's or leave the row out")


def _check_row_ids(ids: NDArray[np.str_] | None, n: int) -> None:
    if ids is None:
        return
    if ids.shape != (n,) or ids.dtype.kind != "U":
        raise DataError(f"row_ids is {ids.dtype} {list(ids.shape)} beside {n} rows of x; give one text per row")
    found, first, count = np.unique(ids, return_index=True, return_counts=True)
    if (count > 1).any() or found[0] == "":
        row, shown = first[np.argmax(count)], found[np.argmax(count)]
        raise DataError(
            f"row {row}: row id '{shown}' is empty or stands for several rows; give each row one of its own"
        )


def _check_ids(what: str, ids: NDArray[np.int64], where: str, count: int) -> None:
    wrong = np.flatnonzero((ids < 0) | (ids >= count))
    if len(wrong):
        raise DataError(
            f"row {wrong[0]}: {what} {ids[wrong[0]]} is outside the {where} (0 to {count - 1}); "
            f"{len(wrong)} such rows: fix them or extend the list"
        )


def _check_targets(targets: NDArray[np.uint8], y: NDArray[np.int64], n_classes: int) -> None:
    if targets.dtype != np.uint8 or targets.shape != (len(y), n_classes):
        raise DataError(
            f"targets is {targets.dtype} {list(targets.shape)}; give uint8 [{len(y)}, {n_classes}]: rows, classes"
        )
    wrong = np.argwhere(targets > UNKNOWN_CELL)
    if len(wrong):
        row, c = wrong[0]
        raise DataError(
            f"row {row}: target {targets[row, c]} of class {c} is neither 0 nor 1, nor {UNKNOWN_CELL} for unknown"
        )
    own = targets[np.arange(len(y)), y]
    foreign = np.flatnonzero((own != 1) & ((own == 0) | (targets == 1).any(axis=1)))
    if len(foreign):
        row = foreign[0]
        raise DataError(f"row {row}: y is class {y[row]}, which is not one of the row's labels; see fedimb.data.labels")


def _check_finite(x: NDArray[np.generic], may_miss: NDArray[np.bool_] | None) -> None:
    if x.dtype == np.uint8:
        return
    rows = max(1, _CHUNK // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        finite = np.isfinite(part)
        if may_miss is not None:
            finite |= np.isnan(part) & may_miss
        finite = finite.reshape(len(part), -1)
        if not finite.all():
            row, value = np.argwhere(~finite)[0]
            raise DataError(f"row {start + row}: value {value} is NaN or infinite; impute it or drop the row")
