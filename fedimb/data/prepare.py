"""From a source to a federation: test split, long tail, partition, validation split, each from its own seed stream."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb import registry
from fedimb.data.config import DataConfig, partition_parts
from fedimb.data.federation import Federation
from fedimb.data.findings.finding import Finding
from fedimb.data.findings.split import split_findings
from fedimb.data.findings.stage import settle
from fedimb.data.longtail import class_ranks, keep_rows, minority_classes, target_counts
from fedimb.data.placement import Placement, place_minority
from fedimb.data.public import split_public
from fedimb.data.rows import Rows
from fedimb.data.scaling import federated_scaling
from fedimb.data.split import split_fraction, split_test
from fedimb.data.store import open_source
from fedimb.errors import ConfigError, DataError
from fedimb.seeds import Stream, numpy_rng

PARTITION_GIVEN = ("patients", "sites", "site_names")  # columns of its rows that a partitioner may request
log = logging.getLogger(__name__)


def prepare(data: dict[str, object], partition: dict[str, object], clients: int, seed: int) -> Federation:
    """The federation of a run (`cut`), unless something looks wrong that the configuration does not accept.

    Raises:
        ConfigError, DataError: as `cut`; or a finding is refused, or asked about and not in ``data.accept``
            (`fedimb.data.findings.stage.settle`, which logs the others).
    """
    federation, findings = cut(data, partition, clients, seed)
    settle(findings, DataConfig.parse(data).accept)
    return federation


def cut(
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
    holders = placement.holders(clients)
    source = config.source | {"on_bad": config.on_bad}
    store = open_source(source)
    y, names = np.asarray(store.y), store.class_names

    split_rng = numpy_rng(seed, Stream.SPLIT)
    test, rest = split_test(y, names, config.test, split_rng, store.patients, store.official_test, store.sites)

    public, rest = (rest[:0], rest)
    if config.public:
        public, rest = split_public(rest, y, names, config.public, numpy_rng(seed, Stream.SPLIT, 1), store.patients)

    ranks = class_ranks(len(names), config.class_order, numpy_rng(seed, Stream.TAIL, 0))
    available = np.bincount(y[rest], minlength=len(names))
    wanted = target_counts(available, config.long_tail, config.imbalance_factor, config.n_max, ranks, names)
    pool = keep_rows(rest, y, wanted, numpy_rng(seed, Stream.TAIL, 1))
    if (absent := np.flatnonzero(store.class_counts(pool) == 0)).size:
        log.warning("no training rows of class %s", ", ".join(names[c] for c in absent))
    minority = minority_classes(store.class_counts(pool), config.minority)

    patients = _take(store.patients, pool)
    columns = {"patients": patients, "sites": _take(store.sites, pool), "site_names": store.site_names}
    partitioner = registry.build("partition", partition_name, given=columns, **partition_args)
    lists = partitioner(y[pool], clients, numpy_rng(seed, Stream.PARTITION))
    _check_partition(lists, len(pool), clients, partition_name, patients)
    if placement.rule is not None:
        moves = numpy_rng(seed, Stream.PARTITION, 1)
        lists = place_minority(lists, y[pool], minority, placement.rule, holders, moves, patients)
    held = [pool[np.sort(positions)] for positions in lists]
    counts = np.stack([store.class_counts(rows) for rows in held])

    parts = [(np.sort(rows), rows[:0]) for rows in held]
    if config.validation:  # a generator for each of 100,000 clients takes seconds
        rngs = (numpy_rng(seed, Stream.VALIDATION, 0, k) for k in range(clients))
        parts = [
            split_fraction(rows, y, config.validation, rng, store.patients)
            for rows, rng in zip(held, rngs, strict=True)
        ]
    federation = Federation(
        source=source,
        store_path=store.path.absolute(),
        train=[kept for kept, _ in parts],
        validation=[out for _, out in parts],
        test=test,
        counts=counts.astype(np.int64),
        class_names=names,
        minority=minority,
        fingerprint=store.fingerprint,
        public=public,
        scaling=None if store.scaled is None else federated_scaling([store.x[kept] for kept, _ in parts], store.scaled),
    )
    return federation, [*(store.findings or ()), *split_findings(federation, store.groups)]


def _take(column: NDArray[Any] | None, rows: Rows) -> NDArray[Any] | None:
    return None if column is None else np.asarray(column[rows])


def _check_partition(lists: list[Rows], n: int, clients: int, name: str, patients: NDArray[np.int64] | None) -> None:
    """Check any partitioner's result: no row lost or repeated, no patient split up."""
    if len(lists) != clients:
        raise DataError(f"partition '{name}' made {len(lists)} clients instead of {clients}; fix the partitioner")
    times = np.bincount(np.concatenate(lists).astype(np.int64), minlength=n)
    if len(times) != n or (times != 1).any():
        raise DataError(
            f"partition '{name}' uses {int((times > 1).sum())} rows twice and leaves out "
            f"{int((times == 0).sum())} of {n}; fix the partitioner"
        )
    if patients is not None:
        owners = np.concatenate([np.full(len(rows), k) for k, rows in enumerate(lists)])
        pairs = np.unique(np.stack([patients[np.concatenate(lists)], owners], axis=1), axis=0)
        if len(pairs) > len(np.unique(patients)):
            raise DataError(f"partition '{name}' splits a patient over clients; use a partition that takes patients")
