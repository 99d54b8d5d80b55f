"""Which client holds which rows: `prepare` splits a source into a test set and clients; a `Federation` holds only
indices."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedimb.data.exposure import exposure
from fedimb.data.federation_file import SavedFederation, digest, read_federation, write_federation
from fedimb.data.groups import clients_of_sites
from fedimb.data.inputs import AgreedColumns
from fedimb.data.label_spaces import Kept, LabelSpaces
from fedimb.data.labels import none_class
from fedimb.data.longtail import redraw
from fedimb.data.region_rows import RegionRows
from fedimb.data.rows import RowLists
from fedimb.data.scaling import Scaling
from fedimb.data.store import Store, open_source, open_store
from fedimb.data.windows import SignalFacts
from fedimb.errors import DataError, FedimbError
from fedimb.plain import Settings
from fedimb.seeds import Stream, numpy_rng

if TYPE_CHECKING:
    from fedimb.data.views import ClientData

Rows = NDArray[np.int64]
Phases = tuple[tuple[int, ...], ...]
"""Class ids of each phase."""
CHANGED = "partition.npz is not the one partition.json was written with; copy both again"
_NAMED = 20  # classes named in a line


def some(names: Sequence[str]) -> str:
    """``a, b, c``; of many names the first ones and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "") or "none"


def minority_line(names: Sequence[str], n_classes: int, rows: Mapping[str, int] | None) -> str:
    """The minority classes in one line, each with its training ``rows`` if they are known."""
    if rows is None:
        return f"minority: {some(names)}, of {n_classes} classes; their rows are counted at the sites"
    return f"minority: {some([f'{name} ({rows[name]:,})' for name in names])} of {n_classes} classes (training rows)"


class Federation:
    """The clients of one run, as row indices: small enough to load in every worker process.

    Attributes:
        source: the source's configuration, to rebuild the store on a machine that does not have it.
        store_path: folder of the store.
        train, validation: per client, sorted int64 rows of the store.
        test: sorted int64 rows of the server's test set.
        counts: [K, C] int64, rows per client and class before validation is cut: the original view. With several
            labels a row counts for each. A label that the client does not know counts for none.
        class_names: one per class id.
        minority: class ids, sorted.
        fingerprint: of the source.
        agreed, signal: of a deployment: columns of tables, rate and channels of signals, as its sites have told them.
        read_with, embedded_by: of a deployment, whose sources are the sites': the settings by which all of them read
            their rows (`fedimb.data.row_settings`), and the encoder of embeddings; empty and None where rows are here.
        scaling: of a table's columns, from all clients' training rows; None if the source needs none.
        public: sorted int64 labelled rows that the server itself holds; empty unless ``data.public`` is set.
        test_counts: [C] int64 rows of each class that score the run: the test set, or without one the validation rows;
            None if they are not known (a deployment, a run of 0.1).
        labels: which client annotates which class, and what its other labels say; None: every label is known.
        phases: class ids of each phase in which classes appear, ascending; empty: all are there from the start. Who
            holds which rows does not depend on them.
        pairs: public key (hex) of each client by id, if clients agree on masks with each other (at hospitals).
        regions: what is known of each region's sites, if clients are regions (`fedimb.data.regions`); else empty.
        sha: hex sha256 over the index lists in client order, test rows, class names and fingerprint.
    """

    def __init__(
        self,
        source: dict[str, object],
        store_path: Path,
        train: Sequence[Rows],
        validation: Sequence[Rows],
        test: Rows,
        counts: NDArray[np.int64],
        class_names: tuple[str, ...],
        minority: tuple[int, ...],
        fingerprint: str,
        scaling: Scaling | None = None,
        public: Rows | None = None,
        test_counts: NDArray[np.int64] | None = None,
        labels: LabelSpaces | None = None,
        phases: Phases = (),
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
        self.test_counts = test_counts
        self.labels = labels
        self.phases = phases
        self.pairs: dict[int, str] = {}
        self.regions: tuple[RegionRows, ...] = ()
        self.read_with: Settings = {}
        self.embedded_by: str | None = None
        self.agreed: AgreedColumns | None = None
        self.signal: SignalFacts | None = None
        self.public = np.zeros(0, np.int64) if public is None else public
        self.sha = self.hash_with(fingerprint)

    def among(
        self,
        train: Sequence[Rows],
        validation: Sequence[Rows],
        counts: NDArray[np.int64],
        labels: LabelSpaces | None = None,
        phases: Phases = (),
    ) -> "Federation":
        """The same store, classes and test set among other clients, or cut otherwise.

        Args:
            train, validation, counts, labels, phases: see the attributes.
        """
        return Federation(
            source=self.source,
            store_path=self.store_path,
            train=train,
            validation=validation,
            test=self.test,
            counts=counts,
            class_names=self.class_names,
            minority=self.minority,
            fingerprint=self.fingerprint,
            scaling=self.scaling,
            public=self.public,
            test_counts=self.test_counts,
            labels=labels,
            phases=phases,
        )

    def hash_with(self, source: str) -> str:
        """Hex sha256 over who holds which rows, test rows, class names and a hash of the source, and over who annotates
        what where not every client annotates every class.
        """
        declared = None if self.labels is None else self.labels.facts()
        return digest(self.train, self.validation, self.test, self.class_names, source, self.public, declared)

    @property
    def n_clients(self) -> int:
        return len(self.train)

    @property
    def virtual(self) -> bool:
        """Whether clients are drawn when they are asked (`fedimb.data.virtual_federation`): none is listed."""
        return False

    @property
    def class_totals(self) -> NDArray[np.int64]:
        """Rows of each class over all clients before validation is cut, [C] int64; zeros in a deployment."""
        totals: NDArray[np.int64] = self.counts.sum(axis=0)
        return totals

    @property
    def n_train_rows(self) -> int:
        """Rows of all clients to train on."""
        return int(self.train_sizes.sum())

    @property
    def labelled_rows(self) -> int:
        """Rows of all clients, to train and to validate on."""
        return self.n_train_rows + int(self.validation.sizes.sum())

    @property
    def n_holders(self) -> int:
        """Number of clients with rows to train on."""
        return int((self.train_sizes > 0).sum())

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.store.input_shape

    @property
    def input_scale(self) -> float:
        """Factor applied to a row's values before the model sees them."""
        return self.store.scale

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the source's sites (devices); empty if it has none."""
        return tuple(self.store.site_names or ())

    @property
    def client_names(self) -> tuple[str, ...]:
        """Name of each client by id in a deployment, where each client is a site; empty in a simulation."""
        return ()

    @property
    def content_sha(self) -> str:
        """Hash of what the source gives, wherever its files are (`Store.content_sha`)."""
        return self.store.content_sha

    @property
    def site_code(self) -> Mapping[str, str]:
        """Release and hash of the code of each site of a deployment, by its name; empty in a simulation."""
        return {}

    @property
    def task(self) -> str:
        """``multiclass``, or ``multilabel`` if rows have several labels."""
        return self.store.task

    @property
    def unknown_labels(self) -> Kept | None:
        """Unknown labels that reach the clients' code: ``cells``, ``coarse`` (`fedimb.data.label_spaces`), or None."""
        return None if self.labels is None else self.labels.kept(self.task)

    @property
    def unknown_rule(self) -> str | None:
        """What becomes of unknown labels: ``cells``, ``coarse``, ``masked`` (left out), or None: there are none."""
        return None if self.labels is None else self.unknown_labels or "masked"

    def known_counts(self, lists: Sequence[Rows]) -> NDArray[np.int64]:
        """[C] int64: rows of each class among the clients' ``lists`` of rows, as far as each client's labels say."""
        if self.labels is None:
            return self.store.class_counts(np.concatenate([np.zeros(0, np.int64), *lists]))
        known = self.labels.counts(np.stack([self.store.class_counts(rows) for rows in lists]))
        return np.asarray(known.sum(axis=0), np.int64)

    def known_validation(self) -> Rows:
        """Sorted validation rows of all clients whose label is known: those that anyone may score or choose by.

        Of rows with several labels, all whose unknown cells are unknown in the source too.

        Raises:
            DataError: rows with several labels, of which clients do not annotate every class.
        """
        if self.labels is None or self.unknown_labels is None:
            return np.sort(self.validation.rows)
        if self.unknown_labels == "cells":
            if self.labels.annotated.all():
                return np.sort(self.validation.rows)  # what is unknown is so in the source
            raise DataError(
                "the clients annotate different classes of rows with several labels, so their validation rows cannot "
                "be read from the source: it has labels that no client knows; give other labelled rows"
            )
        y, seen = np.asarray(self.store.y), self.labels.annotated
        return np.sort(np.concatenate([rows[seen[k][y[rows]]] for k, rows in enumerate(self.validation)]))

    @property
    def imbalance_factor(self) -> float:
        """Realised imbalance factor: largest over smallest number of training rows per class; inf if a class has
        none."""
        total = self.class_totals
        return float(total.max() / total.min()) if total.min() else float("inf")

    @property
    def counts_known(self) -> bool:
        """Whether the rows of each class are known: not in a deployment, whose rows are at the sites."""
        return bool(self.class_totals.any())

    @property
    def minority_rows(self) -> dict[str, int] | None:
        """Training rows of each minority class, by name; None if they are not known."""
        total = self.class_totals.tolist()
        return {self.class_names[c]: total[c] for c in self.minority} if self.counts_known else None

    @property
    def without_training_rows(self) -> list[str]:
        """Names of the classes without training rows, as far as known."""
        return self._without(self.class_totals) if self.counts_known else []

    @property
    def without_test_rows(self) -> list[str]:
        """Names of the classes without rows that score the run, as far as known."""
        return [] if self.test_counts is None or not self.test_counts.any() else self._without(self.test_counts)

    def _without(self, counts: NDArray[np.int64]) -> list[str]:
        return [self.class_names[c] for c in np.flatnonzero(counts == 0)]

    def minority_line(self) -> str:
        """One line: the minority classes with their training rows, and the classes without training or test rows."""
        names = [self.class_names[c] for c in self.minority]
        line = minority_line(names, self.n_classes, self.minority_rows)
        for what, classes in (("training", self.without_training_rows), ("test", self.without_test_rows)):
            line += f"; no {what} rows: {some(classes)}" if classes else ""
        return line

    def phases_line(self) -> str:
        """One line: the classes of each phase; empty without phases."""
        named = [some([self.class_names[c] for c in classes]) for classes in self.phases]
        return "phases: " + "; ".join(f"{number}: {text}" for number, text in enumerate(named, 1)) if named else ""

    def exposure(self) -> dict[str, NDArray[np.generic]]:
        """Who holds each class; see `fedimb.data.exposure.exposure`."""
        return exposure(self.counts)

    @cached_property
    def store(self) -> Store:
        """The store, mapped on first use, rebuilt from `source` if this machine does not have it.

        Raises:
            DataError: it is damaged, both it and its source are missing, or the source has changed since the federation
                was prepared.
        """
        store = open_store(self.store_path) if self.store_path.exists() else self._rebuilt()
        if store.fingerprint != self.fingerprint:
            raise DataError(
                f"{store.path} holds {store.fingerprint}, the clients were cut from {self.fingerprint}; "
                f"restore the source's files or prepare the run again"
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

    def sites_of(self) -> dict[str, list[int]]:
        """Site name -> ids of the clients that hold rows of this site alone; empty if the source has no sites."""
        held = [np.concatenate(both) for both in zip(self.train, self.validation, strict=True)]
        return clients_of_sites(self.store, held)

    def client(self, k: int) -> "ClientData":
        """Client ``k``'s rows as views with tensors."""
        from fedimb.data.views import ClientData

        labels = None
        if self.labels is not None and self.unknown_labels is not None:
            labels = self.labels.of_client(k, none_class(self.class_names) if self.task == "multilabel" else None)
        train, validation = self.train[k], self.validation[k]
        return ClientData(self.store, train, validation, self.scaling, lambda rows: self._redrawn[rows], labels)

    @cached_property
    def _redrawn(self) -> Rows:
        """For each row of the store, the row that a client's view ``mismatched`` shows instead."""
        held = np.sort(np.concatenate([self.train.rows, self.validation.rows]))
        rng = numpy_rng(int(self.sha[:8], 16), Stream.TAIL, 2)
        shown = np.full(len(self.store), -1, np.int64)
        shown[held] = redraw(held, np.setdiff1d(np.arange(len(shown)), self.test), np.asarray(self.store.y), rng)
        return shown

    def save(self, folder: str | Path) -> None:
        """Write partition.npz (index lists) and partition.json (a readable summary and the hash) into ``folder``."""
        write_federation(Path(folder), self._facts(), self.counts, self.train, self.validation, self.test, self.public)

    def _facts(self) -> dict[str, object]:
        return {
            "sha": self.sha,
            "source": self.source,
            "store_path": str(self.store_path),
            "fingerprint": self.fingerprint,
            "class_names": list(self.class_names),
            "minority": list(self.minority),
            "imbalance_factor": self.imbalance_factor,
            "scaling": self.scaling.facts() if self.scaling else None,
            "minority_rows": self.minority_rows,
            "without_training_rows": self.without_training_rows,
            "without_test_rows": self.without_test_rows,
            "test_counts": None if self.test_counts is None else self.test_counts.tolist(),
            "exposure": {name: values.tolist() for name, values in self.exposure().items()},
            **({} if self.labels is None else {"labels": self.labels.facts()}),
            **({"phases": [list(classes) for classes in self.phases]} if self.phases else {}),
        }

    @staticmethod
    def load(folder: str | Path) -> "Federation":
        """Read what `save` wrote. The store is not opened.

        Raises:
            DataError: missing, damaged, changed since it was saved, or of virtual clients, which
                `fedimb.data.virtual_federation.load_federation` reads.
        """
        saved = read_federation(Path(folder))
        if "virtual" in saved.facts:
            raise DataError(
                f"{folder} has virtual clients: read it with fedimb.data.virtual_federation.load_federation"
            )
        federation = Federation.of(saved)
        if federation.sha != saved.facts["sha"]:
            raise DataError(f"{folder}: {CHANGED}")
        return federation

    @staticmethod
    def of(saved: SavedFederation) -> "Federation":
        """From what was read; its hash is not compared."""
        facts = saved.facts
        return Federation(
            source=facts["source"],
            store_path=Path(facts["store_path"]),
            train=saved.train,
            validation=saved.validation,
            test=saved.test,
            counts=saved.counts,
            class_names=tuple(facts["class_names"]),
            minority=tuple(facts["minority"]),
            fingerprint=facts["fingerprint"],
            scaling=Scaling.from_facts(facts["scaling"]) if facts["scaling"] else None,
            public=saved.public,
            test_counts=None if (tested := facts.get("test_counts")) is None else np.array(tested, dtype=np.int64),
            labels=LabelSpaces.from_facts(facts["labels"], len(facts["class_names"])) if "labels" in facts else None,
            phases=tuple(tuple(classes) for classes in facts.get("phases", ())),
        )

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k not in ("store", "_redrawn")}  # cheap to rebuild
