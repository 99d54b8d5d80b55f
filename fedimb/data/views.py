"""A client's data by view: named index lists over one store, and their resident tensors.

Training and querying read the same rows in the same order: ``tensors(v)`` position i is row ``rows(v)[i]``.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedimb.data.scaling import Scaling, prepared
from fedimb.data.store import Store
from fedimb.errors import DataError, nearest

if TYPE_CHECKING:
    import torch

Rows = NDArray[np.int64]
SETTABLE = ("labelled", "pool", "coreset")
VIEWS = ("train", "validation", "trained_on", *SETTABLE)


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
    within ``train``. ``trained_on``: ``train`` cut to ``labelled`` and ``coreset`` where set.

    Args:
        store: the opened store.
        train, validation: int64 rows of the store, as in `Federation`.
        scaling: of a table's columns, the same for every client; None: the rows as they are.
    """

    def __init__(self, store: Store, train: Rows, validation: Rows, scaling: Scaling | None = None) -> None:
        self.store, self.scaling = store, scaling
        self.device = "cpu"  # where `tensors` and `primary` lie, once and for all
        self._rows = {"train": np.sort(train), "validation": np.sort(validation)}
        self._tensors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

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
        foreign = rows[~np.isin(rows, self._rows["train"])]
        if len(foreign) or len(np.unique(rows)) != len(rows):
            what = f"row {foreign[0]} is not a training row" if len(foreign) else "a row is repeated"
            raise DataError(f"view '{name}': {what}; give distinct rows of the client's view 'train'")
        self._rows[name] = rows

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
            return rows
        if view not in self._rows:
            known = view in VIEWS
            raise DataError(
                f"view '{view}' is not set; call set_view first"
                if known
                else f"no view '{view}'.{nearest(view, VIEWS)}"
            )
        return self._rows[view]

    def counts(self, view: str) -> NDArray[np.int64]:
        """[C] int64 rows that have each class; with several labels per row they sum to more than the rows."""
        return self.store.class_counts(self.rows(view))

    def tensors(self, view: str) -> "tuple[torch.Tensor, torch.Tensor]":
        """(x float32 [m, *shape] scaled, y int64 [m]), kept until the view changes. Do not write to them.

        With several labels per row (`task` multilabel) y is float32 [m, C] of 0 and 1; `primary` is one class per row.
        """
        if view == "trained_on" and not {"labelled", "coreset"} & self._rows.keys():
            view = "train"  # the same rows: one copy in memory
        if view not in self._tensors:
            x, y = to_tensors(self.store, self.rows(view), self.scaling)
            self._tensors[view] = x.to(self.device), y.to(self.device)
        return self._tensors[view]

    def primary(self, view: str) -> "torch.Tensor":
        """[m] int64, one class per row: its label, or of several the rarest in the source (`fedimb.data.labels`).

        For what deals rows class by class, as samplers do. With one label per row it is y itself.
        """
        if self.task == "multiclass":
            return self.tensors(view)[1]
        import torch

        return torch.from_numpy(np.array(self.store.y[self.rows(view)], dtype=np.int64)).to(self.device)
