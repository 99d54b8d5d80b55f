"""A client's data by view: named index lists into one store, and their tensors in memory.

Training and querying read the same rows in the same order: ``tensors(v)`` position i is row ``rows(v)[i]``.
If labels still have to be queried, `ClientData.hide_labels` hides all that were not given to the client.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.data.label_spaces import UNKNOWN, ClientLabels, PartialLabels
from fedimb.data.labels import known_cells
from fedimb.data.scaling import Scaling, prepared
from fedimb.data.store import Store
from fedimb.errors import DataError, nearest

if TYPE_CHECKING:
    import torch

Rows = NDArray[np.int64]
SETTABLE = ("labelled", "pool", "coreset", "phase")
CUTS = ("labelled", "coreset", "phase")
"""Views that ``trained_on`` is reduced to, where they are set."""
MISMATCHED = "mismatched"
QueryView = Literal["train", "mismatched"]
VIEWS = ("train", "validation", "trained_on", MISMATCHED, *SETTABLE)


class UnlabelledStore(Store):
    """A store in which every label is `UNKNOWN`: what client code sees if labels are hidden."""

    def class_counts(self, rows: Rows) -> NDArray[np.int64]:
        """Raises: use `ClientData.counts`, which counts the labels that were given."""
        raise DataError("this store's labels are hidden; count a view's with ClientData.counts")


@lru_cache(maxsize=8)
def without_labels(store: Store) -> UnlabelledStore:
    """The same rows, sites and patients without labels; one object per store."""
    kept = {field.name: getattr(store, field.name) for field in fields(store)}
    return UnlabelledStore(**kept | {"y": np.broadcast_to(np.int64(UNKNOWN), len(store)), "targets": None})


def to_tensors(store: Store, rows: Rows, scaling: Scaling | None = None) -> "tuple[torch.Tensor, torch.Tensor]":
    """(x, y) of ``rows``: float32 [m, *shape] scaled, int64 [m]; the tensors own their memory.

    If rows have several labels, y holds the targets, float32 [m, C] of 0 and 1, NaN where unknown.
    """
    import torch

    x = prepared(store.x[rows], store.scale, scaling)
    if store.targets is not None:
        return torch.from_numpy(x), torch.from_numpy(known_cells(np.asarray(store.targets[rows])))
    return torch.from_numpy(x), torch.from_numpy(np.array(store.y[rows], dtype=np.int64))


def known_classes(y: "torch.Tensor", n_classes: int) -> "torch.Tensor | None":
    """Which rows' labels are a class and not a coarse label [n] bool; None if all are, or rows have several labels."""
    if y.ndim != 1:
        return None
    coarse = y >= n_classes
    return ~coarse if bool(coarse.any()) else None


class ClientData:
    """One client's views.

    ``train`` and ``validation`` never change. A method may set ``labelled``, ``pool``, ``coreset`` and
    ``phase``, each within ``train``. ``trained_on``: ``train`` restricted to ``labelled``, ``coreset`` and ``phase`` if
    they are set.
    ``mismatched``: in the order of ``train``, for each row another row of its class that this client does not hold
    (`fedimb.data.longtail.redraw`).

    Args:
        store: the opened store.
        train, validation: int64 rows of the store, as in `Federation`.
        scaling: of a table's columns, the same for every client; None: the rows are not scaled.
        mismatched: maps rows to those shown instead; None (at a real site): the view does not exist.
        labels: what this client's labels say, if some of its rows' labels are unknown in part; None: all are known.
    """

    def __init__(
        self,
        store: Store,
        train: Rows,
        validation: Rows,
        scaling: Scaling | None = None,
        mismatched: Callable[[Rows], Rows] | None = None,
        labels: ClientLabels | None = None,
    ) -> None:
        self.store, self.scaling, self._mismatched = store, scaling, mismatched
        self.device = "cpu"  # of `tensors` and `primary`, set once
        self._rows = {"train": np.sort(train), "validation": np.sort(validation)}
        self._tensors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._given: Rows | None = None  # labels of all the client's rows, once labels are hidden
        self._partial: PartialLabels | None = None
        if labels is not None:
            self._partial = PartialLabels.of(store.y, store.targets, self._own, labels)
            self.store = without_labels(store)

    def hide_labels(self) -> None:
        """From now on hide every label of a training row except those of `set_labels`; calling it again keeps those.

        Views then have y `UNKNOWN` for hidden labels, ``trained_on`` and `counts` leave these rows out, `primary`
        refuses them, and ``store`` has no labels. Validation rows keep their labels. This cannot be undone.

        Raises:
            DataError: rows with several labels.
        """
        if self._given is not None:
            return
        if self._partial is not None:
            raise DataError("labels cannot be hidden and queried where a client annotates only some classes or cells")
        if self.task != "multiclass":
            raise DataError("labels cannot be hidden if rows have several; use data with one class per row")
        given = np.full(len(self._own), UNKNOWN, np.int64)
        validation = self._rows["validation"]
        given[np.searchsorted(self._own, validation)] = self.store.y[validation]
        self.store, self._given = without_labels(self.store), given
        self._relabel()

    def set_labels(self, rows: Rows, labels: Rows) -> None:
        """Hide all labels but these: int64 training rows and their class ids, which replace those given before.

        Raises:
            DataError: a row that is repeated or not a training row, a label that is not a class id.
        """
        self.hide_labels()
        rows, labels = np.asarray(rows, dtype=np.int64), np.asarray(labels, dtype=np.int64)
        self._refuse_foreign("labels", rows)
        if rows.shape != labels.shape or ((labels < 0) | (labels >= self.store.n_classes)).any():
            raise DataError(
                f"labels: give each of the {len(rows)} rows a class id from 0 to {self.store.n_classes - 1}"
            )
        assert self._given is not None
        given = self._given.copy()
        given[np.searchsorted(self._own, self._rows["train"])] = UNKNOWN
        given[np.searchsorted(self._own, rows)] = labels
        if not np.array_equal(given, self._given):
            self._given = given
            if "labelled" in self._rows and (self._labels(self._rows["labelled"]) == UNKNOWN).any():
                self.set_view("labelled", None)  # one of its rows has lost its label
            self._relabel()

    @property
    def label_sets(self) -> NDArray[np.bool_] | None:
        """[J, C] bool: the classes that a label C + j may stand for; None if every label is a class."""
        return None if self._partial is None or self.task != "multiclass" else self._partial.labels.sets

    @property
    def labels_hidden(self) -> bool:
        """Whether `hide_labels` was called."""
        return self._given is not None

    @property
    def known_view(self) -> Literal["train", "labelled"]:
        """The view of all training rows whose class is known: ``labelled`` where labels are hidden, else ``train``.

        Whatever depends on a row's class (a coreset, a count per device) uses only these rows.
        """
        return "train" if self._given is None else "labelled"

    @cached_property
    def _own(self) -> Rows:
        return np.union1d(self._rows["train"], self._rows["validation"])

    def _labels_in(self, view: str) -> Rows:
        return self._labels(self.rows("train" if view == MISMATCHED else view))

    def _labels(self, rows: Rows) -> Rows:
        assert self._given is not None
        return self._given[np.searchsorted(self._own, rows)]

    def _relabel(self) -> None:
        """Update the labels of cached tensors without rebuilding their inputs."""
        import torch

        self._tensors.pop("trained_on", None)  # its rows change too
        for view, (x, _) in self._tensors.items():
            self._tensors[view] = x, torch.from_numpy(self._labels_in(view)).to(self.device)

    @property
    def task(self) -> str:
        """``multiclass``: one class per row; ``multilabel``: any number of them."""
        return self.store.task

    def set_view(self, name: str, rows: Rows | None) -> None:
        """Make ``rows`` (any order; kept sorted) the view ``name``; None unsets it.

        Raises:
            DataError: a view that cannot be set, or rows repeated or not this client's training rows.
        """
        if name not in SETTABLE:
            raise DataError(f"view '{name}' cannot be set.{nearest(name, SETTABLE)}")
        for stale in (name, "trained_on"):
            self._tensors.pop(stale, None)
        if rows is None:
            self._rows.pop(name, None)
            return
        rows = np.sort(np.asarray(rows, dtype=np.int64))
        self._refuse_foreign(f"view '{name}'", rows)
        if name == "labelled" and self._given is not None and (unknown := rows[self._labels(rows) == UNKNOWN]).size:
            raise DataError(f"view 'labelled': row {unknown[0]} has no label yet; give it one with set_labels first")
        self._rows[name] = rows

    def _refuse_foreign(self, what: str, rows: Rows) -> None:
        foreign = rows[~np.isin(rows, self._rows["train"])]
        if len(foreign) or len(np.unique(rows)) != len(rows):
            why = f"row {foreign[0]} is not a training row" if len(foreign) else "a row is repeated"
            raise DataError(f"{what}: {why}; give distinct rows of the client's view 'train'")

    def has(self, view: str) -> bool:
        """Whether ``rows(view)`` is available."""
        return view in self._rows or view == "trained_on"

    def rows(self, view: str) -> Rows:
        """Sorted int64 rows of the store. DataError for an unknown view or one not set yet."""
        if view == "trained_on":
            rows = self._rows["train"]
            for cut in CUTS:
                if cut in self._rows:
                    rows = np.intersect1d(rows, self._rows[cut], assume_unique=True)
            return rows if self._given is None else rows[self._labels(rows) != UNKNOWN]
        if view == MISMATCHED:
            if self._mismatched is None:
                raise DataError("view 'mismatched' shows rows of other clients, which are known only in a simulation")
            return self._mismatched(self._rows["train"])
        if view not in self._rows:
            known = view in VIEWS
            raise DataError(
                f"view '{view}' is not set; call set_view first"
                if known
                else f"no view '{view}'.{nearest(view, VIEWS)}"
            )
        return self._rows[view]

    def counts(self, view: str) -> NDArray[np.int64]:
        """[C] int64 rows of each class; if rows have several labels, the sum exceeds the number of rows.

        If labels are hidden, only rows whose label was given count. A coarse label or an unknown cell counts for no
        class.
        """
        if self._partial is not None:
            return self._partial.counts(self._at(view), self.store.n_classes)
        if self._given is not None:
            known = self._labels(self.rows(view))
            return np.bincount(known[known != UNKNOWN], minlength=self.store.n_classes).astype(np.int64)
        return self.store.class_counts(self.rows(view))

    def full_counts(self, view: str) -> NDArray[np.float64]:
        """`counts` as if every cell of rows with several labels were known, [C] float64: what a prior is made of."""
        if self._partial is None:
            return self.counts(view).astype(np.float64)
        return self._partial.full_counts(self._at(view), self.store.n_classes)

    def tensors(self, view: str) -> "tuple[torch.Tensor, torch.Tensor]":
        """(x float32 [m, *shape] scaled, y int64 [m]), cached until the view changes. Do not write to them.

        If rows have several labels (`task` multilabel), y is float32 [m, C] of 0 and 1; `primary` gives one class per
        row. An unknown cell is NaN, and a coarse label of a row with one class is C + j (`label_sets`).
        """
        if view == "trained_on" and self._given is None and not set(CUTS) & self._rows.keys():
            view = "train"  # the same rows: one copy in memory
        import torch

        if view not in self._tensors:
            rows = self.rows(view)
            x, y = to_tensors(self.store, rows, self.scaling)
            if self._given is not None:
                y = torch.from_numpy(self._labels_in(view))
            if self._partial is not None:
                y = torch.from_numpy(self._partial.seen[self._at(view)])
            self._tensors[view] = x.to(self.device), y.to(self.device)
        return self._tensors[view]

    def primary(self, view: str) -> "torch.Tensor":
        """[m] int64, one class per row: its label, or if there are several the one rarest in the source
        (`fedimb.data.labels`).

        For code that handles rows class by class, such as samplers. With one label per row it is y itself, coarse
        labels included; a row with several labels and no known positive has `UNKNOWN`.
        """
        if self._given is not None and (self._labels(self.rows(view)) == UNKNOWN).any():
            raise DataError(f"view '{view}' has rows without a label, and so without a class; use view 'labelled'")
        if self.task == "multiclass":
            return self.tensors(view)[1]
        import torch

        if self._partial is not None:
            return torch.from_numpy(self._partial.primary[self._at(view)]).to(self.device)
        return torch.from_numpy(np.array(self.store.y[self.rows(view)], dtype=np.int64)).to(self.device)

    def _at(self, view: str) -> Rows:
        """Positions of a view's rows among the client's own."""
        return np.asarray(np.searchsorted(self._own, self.rows("train" if view == MISMATCHED else view)), np.int64)
