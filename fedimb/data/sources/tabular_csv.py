"""Tables in text files (CSV): one file, several of one layout, or one per site."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.identifiers import Names, identifier, in_order
from fedimb.data.inputs import TableColumns
from fedimb.data.labels import as_targets, complete, none_class
from fedimb.data.new_rows import UNKNOWN, Expected, RowBatch
from fedimb.data.problems import Problems
from fedimb.data.sources.files import fingerprint
from fedimb.data.sources.new_tables import TableSettings, table_batches
from fedimb.data.sources.table_features import MISSING, FeatureColumns
from fedimb.data.sources.table_file import Layout, column, read_table
from fedimb.data.sources.table_numbers import NumberFormat
from fedimb.data.sources.table_rows import Positions, Rows, flagged
from fedimb.data.sources.table_target import Target, Value, refuse_mute_site, spelling_of
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.registry import register

log = logging.getLogger(__name__)


@register("source", "tabular_csv")
@dataclass
class TabularCsv:
    """A table from a CSV file; text columns are encoded, number columns scaled.

    x [n, F] float32. Number columns are scaled and imputed from training sums over the clients
    (`fedimb.data.scaling`); one-hot and missing-indicator columns stay 0 and 1.

    Args:
        files: a path, a list of paths (their rows are concatenated), or site name -> path: one site per file.
            Relative paths: `fedimb.data.paths`. Columns are matched by name.
        target: the label's column; or several columns of 0 and 1, one per class, if rows have several labels. A row of
            zeros then gets a separate class (`fedimb.data.labels.complete`).
        classes, target_map, thresholds: the rule for a label in one column, see `Target`.
        header, columns, delimiter, encoding: see `Layout`.
        drop: columns to leave out.
        categorical: columns to encode as one-hot: a list, or column -> categories (null: those in the data, sorted). A
            missing category is 0 in all of them.
        missing_values: column -> values that mean "missing", in addition to '', '?' and 'NA'; see `FeatureColumns`.
        missing: values that mean "missing" in every column, of features and others, as ['N/A', -9].
        decimal, thousands: how numbers are written: ',' and '.' for 7.111,5; see `NumberFormat`.
        indicators: true, false, or the columns that get a 0/1 "missing" column.
        patient: column of patient ids, compared as identifiers (`fedimb.data.identifiers`): 100 and 100.0 are one. With
            one file per site the same id at two sites is two patients.
        site_column: column of site names, instead of one file per site.
        site_names: the sites in order, for ``site_column``; null: those in the data, sorted.
        split_column: column of train, validation or test: the official split. Validation rows are used for training.
        require_all_classes: refuse a site that has no row of some class.
        label_values: site -> every label it can record: the site is checked by these instead of its rows, and refused
            if they cannot express the class list.
        on_bad: `fedimb.data.problems`.

    Attributes:
        feature_names: one per column of x, after `load`.
    """

    files: str | list[str] | dict[str, str]
    target: str | list[str]
    classes: list[str] | None = None
    target_map: dict[str, str] | None = None
    thresholds: list[float] | None = None
    header: bool = True
    columns: list[str] | None = None
    delimiter: str = ","
    encoding: str = "utf-8"
    drop: list[str] = field(default_factory=list)
    categorical: list[str] | dict[str, list[Value] | None] = field(default_factory=list)
    missing_values: dict[str, list[Value]] = field(default_factory=dict)
    indicators: bool | list[str] = True
    patient: str | None = None
    site_column: str | None = None
    site_names: list[str] | None = None
    split_column: str | None = None
    require_all_classes: bool = False
    label_values: dict[str, list[Value]] = field(default_factory=dict)
    missing: list[Value] = field(default_factory=list)
    decimal: str = "."
    thousands: str | None = None
    on_bad: str = "refuse"
    feature_names: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if not self.files:
            raise ConfigError("source 'tabular_csv': files is empty; give a path, a list, or site: path")
        if len(self.delimiter) != 1:
            raise ConfigError(f"source 'tabular_csv': delimiter={self.delimiter!r}: give one character")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ConfigError(f"source 'tabular_csv': encoding={self.encoding!r} is not known; try utf-8") from None
        if self.columns is not None and (len(set(self.columns)) < len(self.columns) or not self.columns):
            raise ConfigError(f"source 'tabular_csv': columns={self.columns}: give each name once")
        if not self.header and self.columns is None:
            raise ConfigError("source 'tabular_csv': header=false needs columns=[...]")
        if isinstance(self.files, dict) and self.site_column is not None:
            raise ConfigError("source 'tabular_csv': files already names the sites; remove site_column")
        for named in (self.files if isinstance(self.files, dict) else (), self.site_names or ()):
            if len({identifier(name) for name in named}) < len(named):
                raise ConfigError(f"source 'tabular_csv': sites {list(named)}: give each site once (1 and 1.0 are one)")
        if self.site_names is not None and self.site_column is None:
            raise ConfigError("source 'tabular_csv': site_names goes with site_column; remove it")
        if isinstance(self.target, list):
            self._check_targets(self.target)
        self._label = Target(self.classes, self.target_map, self.thresholds)
        self._categorical = self.categorical if isinstance(self.categorical, dict) else dict.fromkeys(self.categorical)
        self._marked = not isinstance(self.indicators, bool)
        self._numbers = NumberFormat(self.decimal, self.thousands)

    def _check_targets(self, target: list[str]) -> None:
        if len(target) < 2 or len(set(target)) < len(target):
            raise ConfigError(
                f"source 'tabular_csv': target={target}: give two columns or more, each once, or one name"
            )
        for setting in ("classes", "target_map", "thresholds", "label_values", "require_all_classes"):
            if getattr(self, setting):
                raise ConfigError(
                    f"source 'tabular_csv': several target columns are the classes themselves; remove {setting}"
                )

    def fingerprint(self) -> str:
        """Of the files' contents, in order."""
        return fingerprint("tabular_csv-1", (path for _, path in self._paths()))

    def load(self) -> SourceData:
        """Read all rows.

        Raises:
            DataError: a missing file or column, files with different columns, bad rows, a site whose
                labels cannot express the class list.
        """
        problems = Problems(self.on_bad)
        layout = Layout(
            self.header, None if self.columns is None else tuple(self.columns), self.delimiter, self.encoding
        )
        rows: Rows | None = None
        first: tuple[str, ...] = ()
        start = self._paths()[0][1]
        for site, path in self._paths():
            names, records = read_table(path, layout)
            if rows is None:
                first, rows = names, self._rows(names, path)
            elif odd := sorted(set(names) ^ set(first)):
                has, lacks = (path, start) if odd[0] in names else (start, path)
                raise DataError(f"{has} has column '{odd[0]}' and {lacks} does not; give files with the same columns")
            at = self._positions(names, [names.index(name) for name in rows.features.names], path)
            for place, fields in records:
                problems.guard(place, partial(rows.take, at, site, fields))
        assert rows is not None  # files is not empty
        return self._assemble(rows, problems.settle(len(rows)))

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`. A path ending in .parquet is read as Parquet.

        Raises:
            ConfigError: a mark of missing values for a column that the run does not have.
        """
        layout = Layout(
            self.header, None if self.columns is None else tuple(self.columns), self.delimiter, self.encoding
        )
        beside = tuple(name for name in (self.patient, self.site_column, self.split_column, *self.drop) if name)
        settings = TableSettings(
            layout, tuple(self._targets()), beside, self.missing_values, tuple(self.missing), self._numbers
        )
        if expected.inputs.columns is None and (declared := self._declared(expected.inputs.shape)) is not None:
            expected = replace(expected, inputs=replace(expected.inputs, columns=declared))
            expected.notes.append("the run keeps no names of its columns: they are those that these settings list")
        known = expected.inputs.columns
        if known is not None and (odd := [name for name in self.missing_values if name not in known.names]):
            raise ConfigError(
                f"missing_values names '{odd[0]}', which the run does not read.{nearest(odd[0], known.names)}"
            )
        start, label = 0, self._label
        if (spell := spelling_of(known)) is not identifier:
            label = Target(self.classes, self.target_map, self.thresholds, spell)
        for _, path in self._paths():
            start = yield from table_batches(
                path, settings, partial(self._new_label, expected, label), expected, problems, start
            )

    def _declared(self, shape: tuple[int, ...]) -> TableColumns | None:
        """The columns, if these settings alone say them in order, with every category and indicator; else None."""
        categories = {name: tuple(map(identifier, listed)) for name, listed in self._categorical.items() if listed}
        if self.columns is None or self.indicators is True or len(categories) < len(self._categorical):
            return None
        aside = {*self._targets(), self.patient, self.site_column, self.split_column, *self.drop}
        names = tuple(name for name in self.columns if name not in aside)
        missing = {name: tuple(values) for name, values in self._missing(names).items() if values}
        marked = () if isinstance(self.indicators, bool) else tuple(self.indicators)
        found = TableColumns(names, categories, marked, missing)
        if (len(found.inputs),) != shape:
            raise DataError(
                f"these settings make {len(found.inputs)} inputs of a row, the run's model reads {list(shape)}: give "
                "the settings of the training table"
            )
        return found

    def _new_label(self, expected: Expected, label: Target, fields: Sequence[str]) -> int | list[int]:
        marks = self._marks()
        if isinstance(self.target, list):
            at = {name: i for i, name in enumerate(self.target)}
            held = flagged(at, fields, marks)
            return [int(name in held) for name in self.target]
        text = self._numbers.normal(fields[0])
        return UNKNOWN if text in MISSING or identifier(text) in marks else expected.class_id(label(text))

    def _missing(self, names: Sequence[str]) -> dict[str, list[Value]]:
        """What means "missing" in each feature column, beside '', '?' and 'NA'."""
        return {name: [*self.missing_values.get(name, ()), *self.missing] for name in names}

    def _marks(self) -> frozenset[str]:
        """``missing`` as identifiers."""
        return frozenset(map(identifier, self.missing))

    def _targets(self) -> list[str]:
        return [self.target] if isinstance(self.target, str) else self.target

    def _paths(self) -> list[tuple[str | None, str]]:
        if isinstance(self.files, dict):
            return list(self.files.items())
        return [(None, path) for path in ([self.files] if isinstance(self.files, str) else self.files)]

    def _rows(self, names: tuple[str, ...], path: str) -> Rows:
        for setting in ("drop", "categorical", "missing_values", *(("indicators",) if self._marked else ())):
            for name in getattr(self, setting):
                column(name, names, setting, path)
        aside = {*self._targets(), self.patient, self.site_column, self.split_column, *self.drop}
        kept = [name for name in names if name not in aside]
        if not kept:
            raise DataError(
                f"{path} has no feature columns beside {', '.join(sorted(n for n in aside if n))}; drop fewer"
            )
        for setting in ("categorical", "missing_values", *(("indicators",) if self._marked else ())):
            for name in getattr(self, setting):
                if name not in kept:
                    raise DataError(
                        f"{setting} names '{name}', which is not a feature column: it is dropped or used otherwise"
                    )
        return Rows(
            label=self._label,
            features=FeatureColumns(
                kept, self._categorical, self._missing(kept), self.indicators, numbers=self._numbers, read_marks=True
            ),
            recordable={identifier(s): {identifier(v) for v in values} for s, values in self.label_values.items()},
            known_sites=self.site_names,
            missing=self._marks(),
            numbers=self._numbers,
        )

    def _positions(self, names: tuple[str, ...], features: list[int], path: str) -> Positions:
        def position(name: str | None, setting: str) -> int | None:
            return None if name is None else column(name, names, setting, path)

        return Positions(
            width=len(names),
            target=column(self.target, names, "target", path)
            if isinstance(self.target, str)
            else {name: column(name, names, "target", path) for name in self.target},
            features=tuple(features),
            patient=position(self.patient, "patient"),
            site=position(self.site_column, "site_column"),
            split=position(self.split_column, "split_column"),
        )

    def _assemble(self, rows: Rows, skipped: tuple[str, ...]) -> SourceData:
        table = rows.features.table()
        self.feature_names = table.names
        log.debug("columns of x: %s", ", ".join(table.names))
        targets: NDArray[np.uint8] | None = None
        if isinstance(self.target, list):
            y, targets, known = complete(as_targets(rows.classes, self.target), self.target)
            classes = list(known)
        else:
            found = [name for (name,) in rows.classes]
            classes = self._label.names(found)
            y = _ids(found, classes)
        sites = self._sites(rows)
        self._check_sites(rows, classes, sites)
        return SourceData(
            x=table.x,
            y=y,
            class_names=tuple(classes),
            sites=_ids(rows.sites, sites) if sites else None,
            site_names=tuple(sites),
            patients=np.array(rows.patients, dtype=np.int64) if self.patient else None,
            official_test=np.array(rows.test, dtype=np.bool_) if self.split_column else None,
            task="multiclass" if targets is None else "multilabel",
            targets=targets,
            skipped=skipped,
            scaled=table.scaled,
            columns=table.columns,
            findings=(*rows.features.findings(), *rows.findings()),
        )

    def _sites(self, rows: Rows) -> list[str]:
        if isinstance(self.files, dict):
            return list(self.files)
        return (self.site_names or in_order(rows.sites)) if self.site_column else []

    def _check_sites(self, rows: Rows, classes: list[str], sites: list[str]) -> None:
        for name in self.label_values:
            if name not in Names(sites):
                raise DataError(f"label_values names site '{name}'.{nearest(name, sites)}")
        found: dict[str, set[str]] = {site: set() for site in sites or [""]}
        recorded: dict[str, set[str]] = {site: set() for site in found}
        none = none_class(classes)
        unlabelled = () if none is None else (classes[none],)
        for site, labels, label in zip(rows.sites, rows.classes, rows.labels, strict=True):
            found[site].update(labels or unlabelled)
            recorded[site].add(label)
        for site in found:
            if (able := rows.recordable.get(identifier(site))) is not None:
                refuse_mute_site(site, {self._label(label) for label in able}, able, classes)
            elif self.require_all_classes:
                refuse_mute_site(site or "(all rows)", found[site], recorded[site], classes)
            elif lacking := [name for name in classes if name not in found[site]]:
                log.warning("%s has no row of class %s", f"site '{site}'" if site else "the table", ", ".join(lacking))


def _ids(names: list[str], known: list[str]) -> NDArray[np.int64]:
    id_of = {name: i for i, name in enumerate(known)}
    return np.array([id_of[name] for name in names], dtype=np.int64)
