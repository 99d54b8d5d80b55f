"""From a source to a federation: test split, long tail, partition, validation split, each from its own seed stream."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb import registry
from fedimb.data.config import DataConfig, inner_partition, partition_parts, wraps
from fedimb.data.federation import Federation, Phases, some
from fedimb.data.findings.finding import Finding
from fedimb.data.findings.split import official_test_unused, split_findings
from fedimb.data.findings.stage import settle
from fedimb.data.groups import RowGroups, SplitConfig, at_two_sites, clients_of_sites, row_groups
from fedimb.data.label_spaces import (
    UNKNOWN,
    LabelsConfig,
    LabelSpaces,
    PartialLabels,
    counted_cells,
    label_spaces,
    over_share,
)
from fedimb.data.labels import known_cells, none_class
from fedimb.data.longtail import class_ranks, keep_rows, minority_classes, target_counts
from fedimb.data.partitioners.virtual import Virtual
from fedimb.data.placement import Placement, place_minority
from fedimb.data.public import split_public
from fedimb.data.rows import RowLists, Rows
from fedimb.data.scaling import scaling_of_rows
from fedimb.data.split import split_fraction, split_test
from fedimb.data.split_file import SavedSplit, read_split
from fedimb.data.split_rules import of_seed
from fedimb.data.store import Store, open_source
from fedimb.data.subgroups import alike_values, parse_subgroups, source_to_open, subgroups_of
from fedimb.data.virtual_federation import VirtualFederation
from fedimb.errors import ConfigError, DataError
from fedimb.seeds import Stream, numpy_rng

PARTITION_GIVEN = ("patients", "sites", "site_names")  # columns of its rows that a partitioner may request
log = logging.getLogger(__name__)


def prepare(data: dict[str, object], partition: dict[str, object], clients: int, seed: int) -> Federation:
    """The federation of a run (`prepare_unsettled`), unless something looks wrong that the settings do not accept.

    Raises:
        ConfigError, DataError: as `prepare_unsettled`; or a finding is refused, or asked about and not in
            ``data.accept`` (`fedimb.data.findings.stage.settle`, which logs the others).
    """
    federation, findings = prepare_unsettled(data, partition, clients, seed)
    settle(findings, DataConfig.parse(data).accept)
    return federation


def prepare_unsettled(
    data: dict[str, object], partition: dict[str, object], clients: int, seed: int
) -> tuple[Federation, list[Finding]]:
    """Source -> test split -> the server's rows -> long tail -> partition -> validation split, each with its own seed
    stream; and what is found in the data (`fedimb.data.findings`).

    If rows have several labels, every step uses the primary class (`fedimb.data.labels`); counts and minority use all
    labels.

    Args:
        data: the `data` group, as configs/data/digits.yaml.
        partition: the `partition` group, as configs/partition/dirichlet.yaml.
        clients: >= 1; some may end up without rows.
        seed: the run's seed, >= 0.

    Raises:
        ConfigError: unknown key or value out of range.
        DataError: the data cannot be split as configured.
    """
    config = DataConfig.parse(data)
    placement, _ = Placement.split(partition)
    partition_name, partition_args = partition_parts(partition)
    registry.check_args("partition", partition_name, partition_args, given=PARTITION_GIVEN)
    if clients < 1:
        raise ConfigError(f"clients.count={clients}: give at least 1")
    if registry.flags("partition", partition_name).get("virtual"):
        return _virtual(data, registry.build("partition", partition_name, given=None, **partition_args), clients, seed)
    placement.holders(clients)  # refused before anything is read
    source, store = _opened(data, config, partition_args)
    names = store.class_names

    split = SplitConfig.parse(config.split)
    groups = row_groups(store, split.group)
    kept_whole = None if groups is None else groups.of_row
    cut = _cut(config, store, groups, seed)
    pool = _long_tail(config, store, cut.rest, seed)
    minority = minority_classes(_counts_of_all(store, pool), config.minority, names)

    whole = groups if split.clients else None
    partitioner, held = _deal(partition, clients, store, whole, pool, minority, seed)
    annotates = bool(registry.flags("partition", partition_name).get("annotates"))
    held, counts, spaces = _labelled(config, store, held, partitioner if annotates else None, seed)
    strata = _strata(held, store, spaces)
    train, validation = _sides(held, strata, config.validation, cut.validation, kept_whole, seed)
    if config.validation and not len(validation.rows):
        raise DataError(_nothing_held_out(config.validation, held, groups))
    phased = registry.flags("partition", partition_name).get("phased")
    phases = _phases(partitioner, train, store, seed) if phased else ()
    federation = Federation(
        source=source,
        store_path=store.path.absolute(),
        train=train,
        validation=validation,
        test=cut.test,
        counts=counts,
        class_names=names,
        minority=minority,
        fingerprint=store.fingerprint,
        public=cut.public,
        test_counts=store.class_counts(cut.test) if len(cut.test) else None,
        labels=spaces,
        phases=phases,
        scaling=None if store.scaled is None else scaling_of_rows(store.x, train, store.scaled),
    )
    if federation.test_counts is None:
        federation.test_counts = federation.known_counts(federation.validation)
    ignored = official_test_unused(federation, str(config.test["name"]))
    return federation, [*(store.findings or ()), *split_findings(federation, store.groups), *ignored]


def _virtual(
    data: dict[str, object], draw: Virtual, clients: int, seed: int
) -> tuple[VirtualFederation, list[Finding]]:
    """Clients drawn from all training rows, when they are asked; findings are those of the rows together."""
    whole, findings = prepare_unsettled(data, {"name": "iid"}, 1, seed)
    if len(whole.validation.rows):
        raise DataError(
            "partition=virtual beside validation rows (data.test=file): virtual clients have none; leave them out of "
            "the split, or use another partition"
        )
    if whole.labels is not None:
        raise DataError(
            "partition=virtual beside labels that are unknown in single cells (cell_map): virtual clients know every "
            "label; use another partition"
        )
    return VirtualFederation(whole, draw, clients, seed), findings


def _opened(
    data: dict[str, object], config: DataConfig, partition: Mapping[str, object]
) -> tuple[dict[str, object], Store]:
    """The source with the columns that subgroups need, and its rows; both are checked for what the settings name."""
    source, subgroups = source_to_open(data), parse_subgroups(config.subgroups)
    store = open_source(source)
    _check_patients(config, partition, store)
    if subgroups:
        subgroups_of(store, subgroups)
        for line in alike_values(store, subgroups):
            log.warning("%s", line)
    return source, store


def _long_tail(config: DataConfig, store: Store, rest: Rows, seed: int) -> Rows:
    """The rows of the clients together: ``rest``, from which the long tail has been taken."""
    y, names = np.asarray(store.y), store.class_names
    ranks = class_ranks(len(names), config.class_order, numpy_rng(seed, Stream.TAIL, 0))
    available = np.bincount(y[rest], minlength=len(names))
    wanted = target_counts(available, config.long_tail, config.imbalance_factor, config.n_max, ranks, names)
    pool = keep_rows(rest, y, wanted, numpy_rng(seed, Stream.TAIL, 1))
    if (absent := np.flatnonzero(store.class_counts(pool) == 0)).size:
        log.warning("no training rows of class %s", some([names[c] for c in absent]))
    return pool


def _deal(
    partition: dict[str, object],
    clients: int,
    store: Store,
    groups: RowGroups | None,
    pool: Rows,
    minority: tuple[int, ...],
    seed: int,
) -> tuple[Any, RowLists]:
    """The partitioner, and the rows of ``pool`` that each client holds.

    Args:
        groups: rows of one group stay at one client; None: those of one patient.
    """
    placement, _ = Placement.split(partition)
    name, args = partition_parts(partition)
    y, patients, noun = np.asarray(store.y)[pool], _take(store.patients, pool), store.units
    if groups is not None:
        _check_sites(_deals(name, args), store, groups)
        patients, noun = groups.of_row[pool], groups.noun
    columns = {"patients": patients, "sites": _take(store.sites, pool), "site_names": store.site_names}
    partitioner = registry.build("partition", name, given=columns, **args)
    lists = RowLists.of(partitioner(y, clients, numpy_rng(seed, Stream.PARTITION)))
    _check_partition(lists, len(pool), clients, name, patients, noun)
    if placement.rule is not None:
        holders, moves = placement.holders(clients), numpy_rng(seed, Stream.PARTITION, 1)
        lists = place_minority(lists, y, minority, placement.rule, holders, moves, patients)
    held = RowLists.by_owner(lists.rows, lists.owners(), clients)
    return partitioner, RowLists(pool[held.rows], held.offsets)


def _labelled(
    config: DataConfig, store: Store, held: RowLists, annotates: Any | None, seed: int
) -> tuple[RowLists, NDArray[np.int64], LabelSpaces | None]:
    """The clients' rows that count in a loss, their counts [K, C] of known labels, and their label spaces.

    Args:
        annotates: a partitioner that draws who annotates what; None: the settings alone say it.
    """
    counts, drawn = _counts(store, held), None
    if annotates is not None:
        none = none_class(store.class_names) if store.targets is not None else None
        drawn = _drawn(annotates, counts, none, seed)
    spaces = _spaces(LabelsConfig.parse(config.labels), store, held, counts, drawn)
    if spaces is None:
        return held, counts, None
    held, spaces = _known_rows(held, spaces, store)
    return held, spaces.counts(counts), spaces


def _sides(
    held: RowLists,
    strata: NDArray[np.int64],
    share: float,
    chosen: Rows,
    kept_whole: NDArray[np.int64] | None,
    seed: int,
) -> tuple[RowLists, RowLists]:
    """Every client's rows to train and to validate on.

    Args:
        held: all rows of each client.
        strata: [n] the class of each row of the store by which validation rows are split off.
        share: of each client's rows that validate; 0: those of ``chosen``, which a split file names.
        kept_whole: [n] rows of one number stay on one side; None: each row by itself.
    """
    clients = len(held)
    if share:  # a generator for each of 100,000 clients takes seconds
        rngs = (numpy_rng(seed, Stream.VALIDATION, 0, k) for k in range(clients))
        parts = [split_fraction(rows, strata, share, rng, kept_whole) for rows, rng in zip(held, rngs, strict=True)]
        train, validation = (RowLists.of(side) for side in zip(*parts, strict=True))
        return train, validation
    train = RowLists.by_owner(held.rows, held.owners(), clients)
    if not len(chosen):
        return train, RowLists.empty(clients)
    owner, out = train.owners(), np.isin(train.rows, chosen)
    validation = RowLists.by_owner(train.rows[out], owner[out], clients)
    return RowLists.by_owner(train.rows[~out], owner[~out], clients), validation


def _nothing_held_out(share: float, held: RowLists, groups: RowGroups | None) -> str:
    """Why ``data.validation`` left every client without validation rows."""
    said = f"data.validation={share:g} holds out no row of any of the {len(held)} clients: "
    if groups is None:
        return f"{said}a class's last row stays to train on, and the share of the others is below half a row; raise it"
    return (
        f"{said}the rows of {groups.noun} stay on one side, and each client has too few of them; give clients several "
        f"{groups.noun} (fewer clients, or partition=iid), or name the rows to validate on in a file (data.test=file)"
    )


def _deals(name: str, args: dict[str, Any]) -> str:
    """The partition that deals the rows: this one, or the one inside it."""
    return inner_partition(args)[0] if wraps(name) else name


def _phases(partitioner: Any, train: RowLists, store: Store, seed: int) -> Phases:
    """When each class appears, from a partition that says so, by the clients' rows to train on."""
    if store.targets is not None:
        raise DataError(
            "partition=class_incremental: these rows have several labels, so none appears in one phase; use data with "
            "one class per row, or another partition"
        )
    found: Phases = partitioner.classes(
        store.class_counts(train.rows), store.class_names, numpy_rng(seed, Stream.PARTITION, 3)
    )
    return found


def _drawn(partitioner: Any, counts: NDArray[np.int64], none: int | None, seed: int) -> NDArray[np.bool_]:
    """Who annotates what, [K, C] bool, from a partition that draws it; ``none`` ("no label") follows from the rest."""
    classes = np.setdiff1d(np.arange(counts.shape[1]), [] if none is None else [none])
    found = np.ones(counts.shape, bool)
    found[:, classes] = partitioner.annotated(counts[:, classes], numpy_rng(seed, Stream.PARTITION, 2))
    return found


def _spaces(
    config: LabelsConfig, store: Store, held: Sequence[Rows], counts: NDArray[np.int64], drawn: NDArray[np.bool_] | None
) -> LabelSpaces | None:
    """The clients' label spaces; None if every client knows every label."""
    spaces = None
    if drawn is not None or config != LabelsConfig():
        sites_of = clients_of_sites(store, held)
        spaces = label_spaces(config, len(held), store.class_names, store.task, sites_of, drawn)
    if spaces is None:
        if config != LabelsConfig() and drawn is None and config.annotated is None and config.coarse is None:
            raise ConfigError(
                "data.labels.unknown without clients that leave a class unannotated: set data.labels.annotated, or "
                "partition=annotated_subsets"
            )
        return LabelSpaces.of_all(len(held), store.n_classes) if store.unknown_cells else None
    unlearnable = (counts.sum(axis=0) > 0) & (spaces.counts(counts).sum(axis=0) == 0)
    if spaces.kept(store.task) == "cells" and (none := none_class(store.class_names)) is not None:
        unlearnable[none] = False
    if unlearnable.any():
        name = store.class_names[int(np.flatnonzero(unlearnable)[0])]
        raise DataError(
            f"no client that annotates class '{name}' holds a row of it, so nothing can be learned about it; let one "
            "of its holders annotate it"
        )
    return spaces


def _known_rows(held: RowLists, spaces: LabelSpaces, store: Store) -> tuple[RowLists, LabelSpaces]:
    """The clients' rows without those that count in no loss, and the spaces with the numbers of both."""
    rows = np.array([len(own) for own in held], np.int64)
    kept = list(held)
    cells: NDArray[np.int64] | None = None
    if spaces.kept(store.task) is None:
        y = np.asarray(store.y)
        kept = [own[spaces.annotated[k][y[own]]] for k, own in enumerate(held)]
    elif store.unknown_cells:
        kept, cells = _known_cells(held, spaces, store)
    left_out = rows - np.array([len(own) for own in kept], np.int64)
    if left_out.any():
        log.info("%d of %d rows have no label that their client knows: left out", left_out.sum(), rows.sum())
    return RowLists.of(kept), replace(spaces, rows=rows, left_out=left_out, cells=cells)


def _known_cells(held: RowLists, spaces: LabelSpaces, store: Store) -> tuple[list[Rows], NDArray[np.int64]]:
    """The clients' rows of which some cell is known, and `LabelSpaces.cells`.

    Raises:
        DataError: a class of which no client's row says anything.
    """
    assert store.targets is not None
    names, none = store.class_names, none_class(store.class_names)
    kept: list[Rows] = []
    cells = np.zeros((len(held), len(names)), np.int64)
    for k, own in enumerate(held):
        labels = spaces.of_client(k, none)
        found = labels.targets(np.asarray(store.targets[own]))
        kept.append(own[~np.isnan(found).all(axis=1)])
        cells[k] = labels.counted(found).sum(axis=0)
    silent = cells.sum(axis=0) == 0
    if none is not None:
        silent[none] = False
    if silent.any() and len(held.rows):
        raise DataError(
            f"class '{names[int(np.flatnonzero(silent)[0])]}' is unknown in every row of the clients, so nothing can "
            "be learned about it; leave its column out, or give its labels"
        )
    return kept, cells


def _counts_of_all(store: Store, rows: Rows) -> NDArray[Any]:
    """Of ``rows`` those of each class [C]; of a source with unknown cells as if all were known, of rows with some."""
    if store.targets is None or not store.unknown_cells:
        return store.class_counts(rows)
    cells = known_cells(np.asarray(store.targets[rows]))
    cells = cells[~np.isnan(cells).all(axis=1)]
    share = counted_cells(cells, none_class(store.class_names)).sum(axis=0) / max(len(cells), 1)
    return over_share(store.class_counts(rows), share)


def _strata(held: Sequence[Rows], store: Store, spaces: LabelSpaces | None) -> NDArray[np.int64]:
    """[n] the class of each row by which validation rows are split off: only what its client's labels say."""
    y = np.asarray(store.y)
    if spaces is None or spaces.kept(store.task) is None:
        return y
    known = y.copy()
    none = none_class(store.class_names) if store.targets is not None else None
    for k, rows in enumerate(held):
        known[rows] = PartialLabels.of(store.y, store.targets, rows, spaces.of_client(k, none)).primary
    known[known == UNKNOWN] = known.max() + 1  # rows of which no positive is known: a class of their own
    return known


def _counts(store: Store, held: RowLists) -> NDArray[np.int64]:
    """Rows of each client and class, [K, C] int64; a row with several labels counts for each."""
    if store.targets is not None:
        return np.stack([store.class_counts(rows) for rows in held])
    cells = held.owners() * store.n_classes + np.asarray(store.y)[held.rows]
    return np.bincount(cells, minlength=len(held) * store.n_classes).reshape(len(held), store.n_classes)


def _cut(config: DataConfig, store: Store, groups: RowGroups | None, seed: int) -> SavedSplit:
    """The rows of the test set, of the server and of the clients, before the long tail."""
    y, names, kept_whole = np.asarray(store.y), store.class_names, None if groups is None else groups.of_row
    if config.test["name"] == "file":
        cut = read_split(str(config.test["path"]), store, groups)
        if cut.unused and config.long_tail != "natural":
            raise ConfigError(
                f"data.long_tail={config.long_tail} beside a split that leaves {cut.unused} rows unused already: set "
                "data.long_tail=natural, so that no more are taken away"
            )
        return cut
    noun = "patients" if groups is None else groups.noun
    test, rest = split_test(
        y,
        names,
        of_seed(config.test, seed),
        numpy_rng(seed, Stream.SPLIT),
        kept_whole,
        store.official_test,
        store.sites,
        site_names=store.site_names,
        times=store.times,
        noun=noun,
    )
    public, none = rest[:0], rest[:0]
    if config.public:
        rng = numpy_rng(seed, Stream.SPLIT, 1)
        public, rest = split_public(rest, y, names, config.public, rng, kept_whole, noun)
    return SavedSplit(test, rest, none, public, len(y) - len(test) - len(public) - len(rest))


def _check_patients(config: DataConfig, partition: Mapping[str, object], store: Store) -> None:
    """Refuse to take for patients what is not: rows of one group stay together, but a person may have several."""
    named = "data.test=by_patient" if config.test["name"] == "by_patient" else ""
    if partition.get("column") == "patient":
        named = "partition.column=patient"
    if not named or store.names_patients:
        return
    held = "no patients" if store.patients is None else f"no patients ({store.units} are kept together)"
    other = "another partition" if "partition" in named else "{name: stratified, fraction: 0.2}"
    raise DataError(f"{named}: the source names {held}; give it patients, or use {other}")


def _check_sites(partition: str, store: Store, groups: RowGroups) -> None:
    """Refuse to keep groups at one client where clients are sites, and a group is at two."""
    if store.sites is None or "sites" not in registry.parameters("partition", partition):
        return
    if shared := at_two_sites(groups.of_row, np.asarray(store.sites)):
        raise DataError(
            f"data.split.clients=true: {shared} {groups.noun} have rows at two sites, which partition '{partition}' "
            "makes clients of; set data.split.clients=false, or use a partition that does not go by site"
        )


def _take(column: NDArray[Any] | None, rows: Rows) -> NDArray[Any] | None:
    return None if column is None else np.asarray(column[rows])


def _check_partition(
    lists: RowLists, n: int, clients: int, name: str, patients: NDArray[np.int64] | None, noun: str
) -> None:
    """Check any partitioner's result: no row lost or repeated, no patient split up."""
    if len(lists) != clients:
        raise DataError(f"partition '{name}' made {len(lists)} clients instead of {clients}; fix the partitioner")
    times = np.bincount(lists.rows, minlength=n)
    if len(times) != n or (times != 1).any():
        raise DataError(
            f"partition '{name}' uses {int((times > 1).sum())} rows twice and leaves out "
            f"{int((times == 0).sum())} of {n}; fix the partitioner"
        )
    if patients is not None:
        pairs = np.unique(np.stack([patients[lists.rows], lists.owners()], axis=1), axis=0)
        if len(pairs) > len(np.unique(patients)):
            raise DataError(f"partition '{name}' splits {noun} over clients; use a partition that takes patients")
