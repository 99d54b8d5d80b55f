"""Tables: what every source of tables shares, and tables in files: one, several of one layout, or one per site."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData, attribute_columns_of
from fedimb.data.findings.finding import Finding
from fedimb.data.findings.tables import label_sentinels
from fedimb.data.identifiers import Names, identifier, in_order
from fedimb.data.inputs import AgreedColumns, TableColumns
from fedimb.data.labels import UNKNOWN_CELL, as_targets, complete, none_class
from fedimb.data.new_rows import UNKNOWN, Expected, RowBatch
from fedimb.data.problems import Problems
from fedimb.data.sources.cell_map import CellMap, Cells
from fedimb.data.sources.files import fingerprint
from fedimb.data.sources.new_tables import TableSettings, open_new_text, table_batches
from fedimb.data.sources.table_features import MISSING, FeatureColumns
from fedimb.data.sources.table_file import Layout, column, number
from fedimb.data.sources.table_formats import has_own_header, open_table
from fedimb.data.sources.table_numbers import NumberFormat
from fedimb.data.sources.table_opened import OpenedTable
from fedimb.data.sources.table_rows import Positions, Rows, flagged
from fedimb.data.sources.table_target import Target, Value, refuse_mute_site, spelling_of
from fedimb.data.times import TimeColumn, as_times, check_time_format
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.registry import register

log = logging.getLogger(__name__)


class Site(NamedTuple):
    """One part of a table: its site (None: rows name theirs, or there are none) and how to open it."""

    name: str | None
    path: str
    open: Callable[[Mapping[str, Sequence[str]]], OpenedTable]


@dataclass(kw_only=True)
class Table(ABC):
    """A table of any origin; text columns are encoded, number columns scaled.

    x [n, F] float32. Number columns are scaled and imputed from training sums over the clients
    (`fedimb.data.scaling`); one-hot and missing-indicator columns stay 0 and 1.

    Args:
        target: the label's column; or several columns of 0 and 1, one per class, if rows have several labels. A row of
            zeros then gets a separate class (`fedimb.data.labels.complete`).
        cell_map: of several columns: what other values than 0 and 1 mean, as in {-1: unknown, empty: 0}: 0, 1, unknown;
            or column -> such a map (`fedimb.data.sources.cell_map`). Anything else is a bad row.
        classes, target_map, thresholds: the rule for a label in one column, see `Target`.
        drop: columns to leave out.
        categorical: columns to encode as one-hot: a list, or column -> categories (null: those in the data, sorted). A
            missing category is 0 in all of them. Columns whose categories the file itself declares (ARFF, KEEL) need
            not be named.
        missing_values: column -> values that mean "missing", in addition to '', '?' and 'NA'; see `FeatureColumns`.
        missing: values that mean "missing" in every column, of features and others, as ['N/A', -9].
        decimal, thousands: how a text file writes numbers: ',' and '.' for 7.111,5; see `NumberFormat`.
        indicators: true, false, or the columns that get a 0/1 "missing" column.
        patient: column of patient ids, compared as identifiers (`fedimb.data.identifiers`): 100 and 100.0 are one. With
            one file per site the same id at two sites is two patients.
        site_column: column of site names, instead of one file per site.
        site_names: the sites in order, for ``site_column``; null: those in the data, sorted.
        split_column: column of train, validation or test: the official split. Validation rows are used for training.
        require_all_classes: refuse a site that has no row of some class.
        label_values: site -> every label it can record: the site is checked by these instead of its rows, and refused
            if they cannot express the class list.
        time_column: column of the rows' dates or times, for data.test=temporal; not a feature.
        time_format: of that column: null: ISO dates and timestamps (2024-03-04, 2024-03-04T10:30); a format such as
            %d/%m/%Y; or ``number`` for whole numbers.
        id_column: column that names the rows, each with an id of its own, for split files; not a feature.
        on_bad: `fedimb.data.problems`.
        attributes: columns of ``data.subgroups``; features or not.

    Attributes:
        kind: name of the source, for messages.
        feature_names: one per column of x, after `load`.
    """

    kind: ClassVar[str]
    target: str | list[str]
    classes: list[str] | None = None
    target_map: dict[str, str] | None = None
    thresholds: list[float] | None = None
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
    time_column: str | None = None
    time_format: str | None = None
    id_column: str | None = None
    missing: list[Value] = field(default_factory=list)
    cell_map: Cells | None = None
    decimal: str = "."
    thousands: str | None = None
    on_bad: str = "refuse"
    attributes: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        for named in ([part.name for part in self.parts() if part.name is not None], self.site_names or ()):
            if len({identifier(name) for name in named}) < len(named):
                raise ConfigError(f"source '{self.kind}': sites {list(named)}: give each site once (1 and 1.0 are one)")
        if self.site_names is not None and self.site_column is None:
            raise ConfigError(f"source '{self.kind}': site_names goes with site_column; remove it")
        check_time_format(self.kind, self.time_column, self.time_format)
        if isinstance(self.target, list):
            self._check_targets(self.target)
        elif self.cell_map is not None:
            raise ConfigError(
                f"source '{self.kind}': cell_map is for several target columns of 0 and 1; give target as a list, or "
                "for one column of labels target_map"
            )
        self._cells = CellMap(self.kind, self.cell_map, self._targets())
        self._label = Target(self.classes, self.target_map, self.thresholds, kind=self.kind)
        self._categorical = self.categorical if isinstance(self.categorical, dict) else dict.fromkeys(self.categorical)
        self._marked = not isinstance(self.indicators, bool)
        self._numbers = NumberFormat(self.decimal, self.thousands)

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the rows do."""

    @abstractmethod
    def parts(self) -> list[Site]:
        """The parts of the table, in order; they have the same columns."""

    def _declared_order(self) -> list[str] | None:
        """The names of all columns in order, if the settings list them."""
        return None

    def _check_targets(self, target: list[str]) -> None:
        if len(target) < 2 or len(set(target)) < len(target):
            raise ConfigError(
                f"source '{self.kind}': target={target}: give two columns or more, each once, or one name"
            )
        for setting in ("classes", "target_map", "thresholds", "label_values", "require_all_classes"):
            if getattr(self, setting):
                raise ConfigError(
                    f"source '{self.kind}': several target columns are the classes themselves; remove {setting}"
                )

    def load(self) -> SourceData:
        """Read all rows.

        Raises:
            DataError: a missing file or column, files with different columns, bad rows, a site whose
                labels cannot express the class list.
        """
        problems = Problems(self.on_bad)
        rows: Rows | None = None
        first: tuple[str, ...] = ()
        start = ""
        for site, path, open_part in self.parts():
            table = open_part(self._truth())
            names = table.names
            if rows is None:
                first, start, rows = names, path, self._rows(table)
            elif odd := sorted(set(names) ^ set(first)):
                has, lacks = (path, start) if odd[0] in names else (start, path)
                raise DataError(f"{has} has column '{odd[0]}' and {lacks} does not; give files with the same columns")
            self._check_kinds(table, rows.features)
            at = self._positions(names, [names.index(name) for name in rows.features.names], path)
            self._take(rows, at, site, table, problems)
        assert rows is not None  # there is a part
        return self._assemble(rows, problems.settle(len(rows)))

    def _truth(self) -> dict[str, list[str]]:
        """Column -> values of it, from which a typed table sees how booleans are spelled; else they are 1 and 0."""
        named = {
            name: ["True"] for name in (self.patient, self.site_column, self.id_column, *self._categorical) if name
        }
        named |= {name: list(map(str, listed)) for name, listed in self._categorical.items() if listed}
        if isinstance(self.target, str):
            named[self.target] = list(map(str, self.target_map or self.classes or ["True"]))
        return named

    def _take(self, rows: Rows, at: Positions, site: str | None, table: OpenedTable, problems: Problems) -> None:
        if table.blocks is None:
            for place, fields in table.records:
                problems.guard(place, partial(rows.take, at, site, fields))
            return
        for block in table.blocks:
            if not rows.take_block(at, site, block):
                for place, fields in block.records():
                    problems.guard(place, partial(rows.take, at, site, fields))

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`.

        Raises:
            ConfigError: a mark of missing values for a column that the run does not have.
        """
        beside = tuple(name for name in (*self._named_columns(), *self.drop) if name)
        settings = TableSettings(
            tuple(self._targets()), beside, self.missing_values, tuple(self.missing), self._numbers
        )
        if expected.inputs.columns is None and expected.inputs.agreed is not None:
            found = self._agreed(expected.inputs.agreed)
            expected = replace(expected, inputs=replace(expected.inputs, columns=found))
        elif expected.inputs.columns is None and (declared := self._declared(expected.inputs.shape)) is not None:
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
        for part in self.parts():
            start = yield from table_batches(
                partial(self._open_new, part, expected),
                part.path,
                settings,
                partial(self._new_label, expected, label),
                expected,
                problems,
                start,
            )

    def _open_new(self, part: Site, expected: Expected, spelled: Mapping[str, Sequence[str]]) -> OpenedTable:
        """A part that holds rows to predict."""
        return part.open(spelled)

    def _declared(self, shape: tuple[int, ...]) -> TableColumns | None:
        """The columns, if these settings alone say them in order, with every category and indicator; else None."""
        categories = {name: tuple(map(identifier, listed)) for name, listed in self._categorical.items() if listed}
        order = self._declared_order()
        if order is None or self.indicators is True or len(categories) < len(self._categorical):
            return None
        aside = {*self._targets(), *self._named_columns(), *self.drop}
        names = tuple(name for name in order if name not in aside)
        missing = {name: tuple(values) for name, values in self._missing(names).items() if values}
        marked = () if isinstance(self.indicators, bool) else tuple(self.indicators)
        found = TableColumns(names, categories, marked, missing)
        if (len(found.inputs),) != shape:
            raise DataError(
                f"these settings make {len(found.inputs)} inputs of a row, the run's model reads {list(shape)}: give "
                "the settings of the training table"
            )
        return found

    def _agreed(self, agreed: AgreedColumns) -> TableColumns:
        """The columns of a deployment's sites, with the categories and marks of missing values of these settings.

        Raises:
            DataError: they are not those of the sites.
        """
        listed = {name: tuple(map(identifier, values)) for name, values in self._categorical.items() if values}
        categories = {name: listed[name] for name in agreed.names if name in listed}
        missing = {name: tuple(values) for name, values in self._missing(agreed.names).items() if values}
        marks = [(), agreed.names] if isinstance(self.indicators, bool) else [tuple(self.indicators)]
        found = agreed.found([TableColumns(agreed.names, categories, one, missing) for one in marks])
        if found is None:
            shown = ", ".join(agreed.names[:8])
            raise DataError(
                f"the run's sites read the columns {shown}{', ...' * (len(agreed.names) > 8)} with other categories or "
                "marks of missing values than these settings list, and categories stay at the sites: give "
                "categorical={column: [every category]} and indicators=[columns], as the sites registered their tables"
            )
        return found

    def _new_label(self, expected: Expected, label: Target, fields: Sequence[str]) -> int | list[int]:
        marks = self._marks()
        if isinstance(self.target, list):
            at = {name: i for i, name in enumerate(self.target)}
            held, unknown = flagged(at, fields, self._cells, marks)
            return [UNKNOWN_CELL if name in unknown else int(name in held) for name in self.target]
        text = self._numbers.normal(fields[0])
        return UNKNOWN if text in MISSING or identifier(text) in marks else expected.class_id(label(text))

    def _missing(self, names: Sequence[str]) -> dict[str, list[Value]]:
        """What means "missing" in each feature column, beside '', '?' and 'NA'."""
        return {name: [*self.missing_values.get(name, ()), *self.missing] for name in names}

    def _missing_attributes(self) -> dict[str, frozenset[str]]:
        missing = self._missing(self.attributes)
        return {name: frozenset(map(identifier, values)) for name, values in missing.items()}

    def _marks(self) -> frozenset[str]:
        """``missing`` as identifiers."""
        return frozenset(map(identifier, self.missing))

    def _named_columns(self) -> tuple[str | None, ...]:
        """Columns that are neither targets nor features."""
        return self.patient, self.site_column, self.split_column, self.time_column, self.id_column

    def _targets(self) -> list[str]:
        return [self.target] if isinstance(self.target, str) else self.target

    def _rows(self, table: OpenedTable) -> Rows:
        names, path = table.names, table.path
        for setting in ("drop", "categorical", "missing_values", *(("indicators",) if self._marked else ())):
            for name in getattr(self, setting):
                column(name, names, setting, path)
        aside = {*self._targets(), *self._named_columns(), *self.drop}
        kept = [name for name in names if name not in aside]
        if not kept:
            raise DataError(
                f"{path} has no feature columns beside {', '.join(sorted(n for n in aside if n))}; drop fewer"
            )
        for setting in ("categorical", "missing_values", *(("indicators",) if self._marked else ())):
            for name in getattr(self, setting):
                if name not in kept and not (setting == "missing_values" and name in self.attributes):
                    raise DataError(
                        f"{setting} names '{name}', which is not a feature column: it is dropped or used otherwise"
                    )
        numbers = self._numbers if table.blocks is None else NumberFormat()  # typed columns are not text
        return Rows(
            label=self._label,
            features=FeatureColumns(
                kept,
                self._encoded(table, kept),
                self._missing(kept),
                self.indicators,
                numbers=numbers,
                read_marks=True,
                typed=table.typed,
            ),
            recordable={identifier(s): {identifier(v) for v in values} for s, values in self.label_values.items()},
            known_sites=self.site_names,
            missing=self._marks(),
            numbers=numbers,
            time=TimeColumn(self.time_format),
            cells=self._cells,
        )

    def _encoded(self, table: OpenedTable, kept: list[str]) -> dict[str, list[Value] | None]:
        """Categories of the feature columns: those of the settings, else those that the file declares."""
        declared: dict[str, list[Value] | None] = {
            name: list(values) for name, values in table.nominal.items() if name in kept
        }
        return declared | self._categorical

    def _check_kinds(self, table: OpenedTable, features: FeatureColumns) -> None:
        """Refuse columns that are neither numbers nor text, and parts that declare other categories than the first."""
        named = [name for name in (*self._targets(), self.patient, self.site_column, self.id_column) if name]
        for name, what in table.odd.items():
            if name in named and what != "dates or times":
                raise DataError(f"{table.path}: column '{name}' holds {what}; save it as numbers or text")
            if name in features.names and (name not in self._categorical or what != "dates or times"):
                raise DataError(
                    f"{table.path}: column '{name}' holds {what}, which no model reads: drop it, or save it as "
                    "a number (days since a fixed date)"
                )
        for name in (*named, *self._categorical):
            if name in table.inexact:
                raise DataError(
                    f"{table.path}: column '{name}' names something and {table.inexact[name]}: floats merge whole "
                    "numbers of this size; give integers or text"
                )
        for name, values in table.nominal.items():
            known = features.categories(name)
            if known is not None and name not in self._categorical and list(map(identifier, values)) != known:
                raise DataError(
                    f"{table.path}: column '{name}' lists {', '.join(values[:8])}, another file "
                    f"{', '.join(known[:8])}; give categorical={{{name}: [...]}} with all of them"
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
            time=position(self.time_column, "time_column"),
            row_id=position(self.id_column, "id_column"),
            attributes=tuple(column(name, names, "data.subgroups", path) for name in self.attributes),
        )

    def _assemble(self, rows: Rows, skipped: tuple[str, ...]) -> SourceData:
        table = rows.features.table()
        self.feature_names = table.names
        log.debug("columns of x: %s", ", ".join(table.names))
        targets: NDArray[np.uint8] | None = None
        if isinstance(self.target, list):
            found_cells = as_targets(rows.classes, self.target)
            found_cells[as_targets(rows.unknown, self.target) == 1] = UNKNOWN_CELL
            y, targets, known = complete(found_cells, self.target)
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
            times=as_times(rows.times) if self.time_column else None,
            row_ids=np.array(list(rows.row_ids), dtype=np.str_) if self.id_column else None,
            findings=(*rows.features.findings(), *rows.findings(), *self._label_findings(rows)),
            attributes=attribute_columns_of(self.attributes, rows.attributes, self._missing_attributes()),
        )

    def _label_findings(self, rows: Rows) -> Iterator[Finding]:
        if self.thresholds is not None and isinstance(self.target, str):
            values = np.array([number(label) for label in rows.labels], np.float32)
            yield from label_sentinels(self.target, values)

    def _sites(self, rows: Rows) -> list[str]:
        if named := [part.name for part in self.parts() if part.name is not None]:
            return named
        return (self.site_names or in_order(rows.sites)) if self.site_column else []

    def _check_sites(self, rows: Rows, classes: list[str], sites: list[str]) -> None:
        for name in self.label_values:
            if name not in Names(sites):
                raise DataError(f"label_values names site '{name}'.{nearest(name, sites)}")
        found: dict[str, set[str]] = {site: set() for site in sites or [""]}
        recorded: dict[str, set[str]] = {site: set() for site in found}
        none = none_class(classes)
        unlabelled = () if none is None else (classes[none],)
        for site, labels, unknown, label in zip(rows.sites, rows.classes, rows.unknown, rows.labels, strict=True):
            found[site].update(labels or (() if unknown else unlabelled))
            recorded[site].add(label)
        for site in found:
            if (able := rows.recordable.get(identifier(site))) is not None:
                refuse_mute_site(site, {self._label(label) for label in able}, able, classes)
            elif self.require_all_classes:
                refuse_mute_site(site or "(all rows)", found[site], recorded[site], classes)
            elif lacking := [name for name in classes if name not in found[site]]:
                log.warning("%s has no row of class %s", f"site '{site}'" if site else "the table", ", ".join(lacking))


@register("source", "tabular_csv")
@dataclass
class TabularCsv(Table):
    """Tables in files: CSV and other separated text, ARFF, KEEL .dat, Parquet, Arrow.

    The suffix says which: .parquet and .pq, .arrow, .feather and .ipc, .arff; .dat is KEEL's if its header begins with
    @; all others are separated text. Files of several formats may be mixed.

    Args:
        files: a path, a list of paths (their rows are concatenated), or site name -> path: one site per file.
            Relative paths: `fedimb.data.paths`. Columns are matched by name.
        header, columns, delimiter: of separated text, see `Layout`.
        encoding: of separated text, ARFF and KEEL files.
    """

    kind: ClassVar[str] = "tabular_csv"
    files: str | list[str] | dict[str, str]
    _: KW_ONLY
    header: bool = True
    columns: list[str] | None = None
    delimiter: str = ","
    encoding: str = "utf-8"

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
        super().__post_init__()

    def fingerprint(self) -> str:
        """Of the files' contents, in order."""
        return fingerprint("tabular_csv-1", (path for _, path in self._paths()))

    def parts(self) -> list[Site]:
        """The files."""
        return [Site(site, path, partial(open_table, path, self._layout)) for site, path in self._paths()]

    @property
    def _layout(self) -> Layout:
        columns = None if self.columns is None else tuple(self.columns)
        return Layout(self.header, columns, self.delimiter, self.encoding)

    def _paths(self) -> list[tuple[str | None, str]]:
        if isinstance(self.files, dict):
            return list(self.files.items())
        return [(None, path) for path in ([self.files] if isinstance(self.files, str) else self.files)]

    def _declared_order(self) -> list[str] | None:
        return self.columns

    def _open_new(self, part: Site, expected: Expected, spelled: Mapping[str, Sequence[str]]) -> OpenedTable:
        if has_own_header(part.path, self.encoding):
            return part.open(spelled)
        wanted = expected.inputs.columns
        return open_new_text(part.path, self._layout, self._targets(), () if wanted is None else wanted.names)


def _ids(names: list[str], known: list[str]) -> NDArray[np.int64]:
    id_of = {name: i for i, name in enumerate(known)}
    return np.array([id_of[name] for name in names], dtype=np.int64)
