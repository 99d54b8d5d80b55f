"""A client's data by view: named index lists over one store, and their resident tensors.

Training and querying read the same rows in the same order: ``tensors(v)`` position i is row ``rows(v)[i]``.
Where labels are yet to be asked for, `ClientData.hide_labels` takes away all that were not given to it.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.data.scaling import Scaling, prepared
from fedimb.data.store import Store
from fedimb.errors import DataError, nearest

if TYPE_CHECKING:
    import torch

Rows = NDArray[np.int64]
SETTABLE = ("labelled", "pool", "coreset")
MISMATCHED = "mismatched"
QueryView = Literal["train", "mismatched"]
VIEWS = ("train", "validation", "trained_on", MISMATCHED, *SETTABLE)
UNKNOWN = -1
"""What stands in y for a label that was not given."""


class UnlabelledStore(Store):
    """A store whose every label is `UNKNOWN`: what client code sees where labels are hidden."""

    def class_counts(self, rows: Rows) -> NDArray[np.int64]:
        """Refused: a view's `ClientData.counts` counts the labels that were given."""
        raise DataError("this store's labels are hidden; count a view's with ClientData.counts")


@lru_cache(maxsize=8)
def without_labels(store: Store) -> UnlabelledStore:
    """The same rows, sites and patients without a label; one object per store."""
    kept = {field.name: getattr(store, field.name) for field in fields(store)}
    return UnlabelledStore(**kept | {"y": np.broadcast_to(np.int64(UNKNOWN), len(store)), "targets": None})


def to_tensors(store: Store, rows: Rows, scaling: Scaling | None = None) -> "tuple[torch.Tensor, torch.Tensor]":
    """(x, y) of ``rows``: float32 [m, *shape] scaled, int64 [m]; the tensors own their memory.

    With several labels per row y is their targets, float32 [m, C] of 0 and 1.
    """
    import torch

    x = prepared(store.x[rows], store.scale, scaling)
    if store.targets is not None:
        return torch.from_numpy(x), torch.from_numpy(np.array(store.targets[rows], dtype=np.float32))
    return torch.from_numpy(x), torch.from_numpy(np.array(store.y[rows], dtype=np.int64))


class ClientData:
    """One client's views.

    ``train`` and ``validation`` never change. A method may set ``labelled``, ``pool`` and ``coreset``, each
    within ``train``. ``trained_on``: ``train`` cut to ``labelled`` and ``coreset`` where set. ``mismatched``: in
    ``train``'s order, for each row another of its class, not this client's own (`fedimb.data.longtail.redraw`).

    Args:
        store: the opened store.
        train, validation: int64 rows of the store, as in `Federation`.
        scaling: of a table's columns, the same for every client; None: the rows as they are.
        mismatched: rows to those shown in their place; None, as at a real site: there is no such view.
    """

    def __init__(
        self,
        store: Store,
        train: Rows,
        validation: Rows,
        scaling: Scaling | None = None,
        mismatched: Callable[[Rows], Rows] | None = None,
    ) -> None:
        self.store, self.scaling, self._mismatched = store, scaling, mismatched
        self.device = "cpu"  # where `tensors` and `primary` lie, once and for all
        self._rows = {"train": np.sort(train), "validation": np.sort(validation)}
        self._tensors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._given: Rows | None = None  # labels of all own rows, once labels are hidden

    def hide_labels(self) -> None:
        """From now on know no label of a training row but those of `set_labels`; called again, keep those.

        Views then hold y `UNKNOWN` for the others, ``trained_on`` and `counts` leave them out, `primary` refuses them,
        and ``store`` has no labels. Validation rows keep theirs. There is no way back.

        Raises:
            DataError: rows with several labels.
        """
        if self._given is not None:
            return
        if self.task != "multiclass":
            raise DataError("labels of rows with several of them cannot be hidden; use data with one class per row")
        given = np.full(len(self._own), UNKNOWN, np.int64)
        validation = self._rows["validation"]
        given[np.searchsorted(self._own, validation)] = self.store.y[validation]
        self.store, self._given = without_labels(self.store), given
        self._relabel()

    def set_labels(self, rows: Rows, labels: Rows) -> None:
        """Hide all labels but these: int64 training rows and their class ids, which replace those given before.

        Raises:
            DataError: a row that is repeated or not a training row, a label that is no class id.
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
    def labels_hidden(self) -> bool:
        """Whether `hide_labels` was called."""
        return self._given is not None

    @property
    def known_view(self) -> Literal["train", "labelled"]:
        """The view of all training rows whose class is known: ``labelled`` where labels are hidden, else ``train``.

        What goes by the class of a row (a coreset, a count per device) looks at these rows and no others.
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
        """Bring kept tensors up to date without making their inputs again."""
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
        """Whether ``rows(view)`` would answer."""
        return view in self._rows or view == "trained_on"

    def rows(self, view: str) -> Rows:
        """Sorted int64 rows of the store. DataError for an unknown view or one not set yet."""
        if view == "trained_on":
            rows = self._rows["train"]
            for cut in ("labelled", "coreset"):
                if cut in self._rows:
                    rows = np.intersect1d(rows, self._rows[cut], assume_unique=True)
            return rows if self._given is None else rows[self._labels(rows) != UNKNOWN]
        if view == MISMATCHED:
            if self._mismatched is None:
                raise DataError("view 'mismatched' shows rows of other clients, which only a simulation has")
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
        """[C] int64 rows that have each class; with several labels per row they sum to more than the rows.

        Where labels are hidden, of the rows whose label was given.
        """
        if self._given is not None:
            known = self._labels(self.rows(view))
            return np.bincount(known[known != UNKNOWN], minlength=self.store.n_classes).astype(np.int64)
        return self.store.class_counts(self.rows(view))

    def tensors(self, view: str) -> "tuple[torch.Tensor, torch.Tensor]":
        """(x float32 [m, *shape] scaled, y int64 [m]), kept until the view changes. Do not write to them.

        With several labels per row (`task` multilabel) y is float32 [m, C] of 0 and 1; `primary` is one class per row.
        """
        if view == "trained_on" and self._given is None and not {"labelled", "coreset"} & self._rows.keys():
            view = "train"  # the same rows: one copy in memory
        import torch

        if view not in self._tensors:
            rows = self.rows(view)
            x, y = to_tensors(self.store, rows, self.scaling)
            if self._given is not None:
                y = torch.from_numpy(self._labels_in(view))
            self._tensors[view] = x.to(self.device), y.to(self.device)
        return self._tensors[view]

    def primary(self, view: str) -> "torch.Tensor":
        """[m] int64, one class per row: its label, or of several the rarest in the source (`fedimb.data.labels`).

        For what deals rows class by class, as samplers do. With one label per row it is y itself.
        """
        if self._given is not None and (self._labels(self.rows(view)) == UNKNOWN).any():
            raise DataError(f"view '{view}' holds rows without a label, so they have no class; use view 'labelled'")
        if self.task == "multiclass":
            return self.tensors(view)[1]
        import torch

        return torch.from_numpy(np.array(self.store.y[self.rows(view)], dtype=np.int64)).to(self.device)
