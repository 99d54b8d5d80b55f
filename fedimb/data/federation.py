"""Who holds what: `prepare` cuts a source into a test set and clients; a `Federation` is index lists only."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedimb import registry
from fedimb.data.config import DataConfig, partition_parts
from fedimb.data.exposure import exposure
from fedimb.data.federation_file import digest, read, write
from fedimb.data.longtail import class_ranks, keep_rows, minority_classes, target_counts
from fedimb.data.placement import Placement, place_minority
from fedimb.data.rows import RowLists
from fedimb.data.scaling import Scaling, federated_scaling
from fedimb.data.split import split_fraction, split_test
from fedimb.data.store import Store, open_source, open_store
from fedimb.errors import ConfigError, DataError, FedimbError
from fedimb.seeds import Stream, numpy_rng

if TYPE_CHECKING:
    from fedimb.data.views import ClientData

Rows = NDArray[np.int64]
PARTITION_GIVEN = ("patients", "sites", "site_names")  # columns a partitioner may ask for, cut to the rows it deals
log = logging.getLogger(__name__)


class Federation:
    """The clients of one run. Small enough to load in every worker process.

    Attributes:
        source: the source's configuration, to rebuild the store on a machine that lacks it.
        store_path: folder of the store.
        train, validation: per client, sorted int64 rows of the store.
        test: sorted int64 rows of the server's test set.
        counts: [K, C] int64, rows per client and class before validation is cut: the original view. With several
            labels a row counts for each.
        class_names: one per class id.
        minority: class ids, sorted.
        fingerprint: of the source.
        scaling: of a table's columns by all clients' training rows; None where the source asks for none.
        sha: hex sha256 over the index lists in client order, test rows, class names and fingerprint.
    """

    def __init__(
        self,
        source: dict[str, Any],
        store_path: Path,
        train: Sequence[Rows],
        validation: Sequence[Rows],
        test: Rows,
        counts: NDArray[np.int64],
        class_names: tuple[str, ...],
        minority: tuple[int, ...],
        fingerprint: str,
        scaling: Scaling | None = None,
    ) -> None:
        self.source = source
        self.store_path = store_path
        self.train = RowLists.of(train)
        self.validation = RowLists.of(validation)
        self.test = test
        self.counts = counts
        self.class_names = class_names
        self.minority = minority
        self.fingerprint = fingerprint
        self.scaling = scaling
        self.sha = digest(self.train, self.validation, test, class_names, fingerprint)

    @property
    def n_clients(self) -> int:
        return len(self.train)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.store.input_shape

    @property
    def task(self) -> str:
        """``multiclass``, or ``multilabel`` where rows have several labels."""
        return self.store.task

    @property
    def imbalance_factor(self) -> float:
        """Realised: most over fewest training rows that have a class; inf where a class has none."""
        total = self.counts.sum(axis=0)
        return float(total.max() / total.min()) if total.min() else float("inf")

    def exposure(self) -> dict[str, NDArray[Any]]:
        """Who holds each class; see `fedimb.data.exposure.exposure`."""
        return exposure(self.counts)

    @cached_property
    def store(self) -> Store:
        """The store, mapped on first use, rebuilt from `source` where this machine does not have it.

        Raises:
            DataError: damaged, neither it nor its source is here, or the source has changed since the federation was
                prepared.
        """
        store = open_store(self.store_path) if self.store_path.exists() else self._rebuilt()
        if store.fingerprint != self.fingerprint:
            raise DataError(
                f"{store.path} holds {store.fingerprint}, the clients were cut from {self.fingerprint}; "
                f"restore the source's files or prepare the run anew"
            )
        return store

    def _rebuilt(self) -> Store:
        try:
            return open_source(self.source)
        except FedimbError as error:
            raise DataError(
                f"no data store {self.store_path} and no source to build it from ({error}); share that folder with "
                "this machine, or put the source here and set FEDIMB_DATA_DIR to its folder"
            ) from error

    @property
    def train_sizes(self) -> NDArray[np.int64]:
        """Training rows of each client, [K]."""
        return self.train.sizes

    def client(self, k: int) -> "ClientData":
        """Client ``k``'s rows as views with tensors."""
        from fedimb.data.views import ClientData

        return ClientData(self.store, self.train[k], self.validation[k], self.scaling)

    def save(self, folder: str | Path) -> None:
        """Write partition.npz (index lists) and partition.json (for people, and the hash) into ``folder``."""
        facts = {
            "sha": self.sha,
            "source": self.source,
            "store_path": str(self.store_path),
            "fingerprint": self.fingerprint,
            "class_names": list(self.class_names),
            "minority": list(self.minority),
            "imbalance_factor": self.imbalance_factor,
            "scaling": self.scaling.facts() if self.scaling else None,
            "counts": self.counts.tolist(),
            "exposure": {name: values.tolist() for name, values in self.exposure().items()},
        }
        write(Path(folder), facts, self.train, self.validation, self.test)

    @staticmethod
    def load(folder: str | Path) -> "Federation":
        """Read what `save` wrote. The store is not opened.

        Raises:
            DataError: missing, damaged, or changed since it was saved.
        """
        facts, train, validation, test = read(Path(folder))
        federation = Federation(
            source=facts["source"],
            store_path=Path(facts["store_path"]),
            train=train,
            validation=validation,
            test=test,
            counts=np.array(facts["counts"], dtype=np.int64).reshape(len(train), len(facts["class_names"])),
            class_names=tuple(facts["class_names"]),
            minority=tuple(facts["minority"]),
            fingerprint=facts["fingerprint"],
            scaling=Scaling.from_facts(facts["scaling"]) if facts["scaling"] else None,
        )
        if federation.sha != facts["sha"]:
            raise DataError(f"{folder}: partition.npz is not the one partition.json was written with; copy both again")
        return federation

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "store"}  # a map would be pickled as its data


def prepare(data: dict[str, Any], partition: dict[str, Any], clients: int, seed: int) -> Federation:
    """Source -> test split -> long tail -> partition -> validation split, each from its own seed stream.

    With several labels per row all go by the primary class (`fedimb.data.labels`); counts and minority by every label.

    Args:
        data: the `data` group, as configs/data/digits.yaml.
        partition: the `partition` group, as configs/partition/dirichlet.yaml.
        clients: >= 1; some may end up without rows.
        seed: the run's seed, >= 0.

    Raises:
        ConfigError: unknown key or value out of range.
        DataError: the data cannot be cut as asked.
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

    parts = [
        split_fraction(rows, y, config.validation, numpy_rng(seed, Stream.VALIDATION, 0, k), store.patients)
        for k, rows in enumerate(held)
    ]
    return Federation(
        source=source,
        store_path=store.path.absolute(),
        train=[kept for kept, _ in parts],
        validation=[out for _, out in parts],
        test=test,
        counts=counts.astype(np.int64),
        class_names=names,
        minority=minority,
        fingerprint=store.fingerprint,
        scaling=None if store.scaled is None else federated_scaling([store.x[kept] for kept, _ in parts], store.scaled),
    )


def _take(column: NDArray[Any] | None, rows: Rows) -> NDArray[Any] | None:
    return None if column is None else np.asarray(column[rows])


def _check_partition(lists: list[Rows], n: int, clients: int, name: str, patients: NDArray[np.int64] | None) -> None:
    """Nothing lost, nothing twice, no patient parted: whoever wrote the partitioner."""
    if len(lists) != clients:
        raise DataError(f"partition '{name}' made {len(lists)} clients of {clients}; mend the partitioner")
    times = np.bincount(np.concatenate(lists).astype(np.int64), minlength=n)
    if len(times) != n or (times != 1).any():
        raise DataError(
            f"partition '{name}' uses {int((times > 1).sum())} rows twice and leaves out "
            f"{int((times == 0).sum())} of {n}; mend the partitioner"
        )
    if patients is not None:
        owners = np.concatenate([np.full(len(rows), k) for k, rows in enumerate(lists)])
        pairs = np.unique(np.stack([patients[np.concatenate(lists)], owners], axis=1), axis=0)
        if len(pairs) > len(np.unique(patients)):
            raise DataError(f"partition '{name}' parts a patient over clients; use one that takes patients")
