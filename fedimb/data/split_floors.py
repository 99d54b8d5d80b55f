"""Class floors: how many rows of each class a test set and the training rows beside it must have."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.data.rows import Rows
from fedimb.data.times import Times, shown_time
from fedimb.errors import DataError


@dataclass(frozen=True, eq=False)
class Floors:
    """The setting ``min_per_class`` of a test rule, and what is possible where it cannot be met.

    Args:
        y: [n] labels.
        class_names: one per class id.
        floor: rows of each class on each side; None: no floor. Classes without rows are passed over.
        groups: [n] ids of what is never split up, called ``noun`` in messages; None: rows.
    """

    y: NDArray[np.int64]
    class_names: tuple[str, ...]
    floor: int | None
    groups: NDArray[np.int64] | None = None
    noun: str = "patients"

    def check(self, test: Rows, rest: Rows, what: str, remedy: str = "") -> None:
        """Raise DataError if a class has fewer rows than the floor in ``test`` or ``rest``.

        Args:
            what: the split, for the message: it "gives 2 rows to test".
            remedy: what to change where a split could meet the floor.
        """
        if self.floor is None:
            return
        have, got, left = (self._counts(rows) for rows in (np.arange(len(self.y)), test, rest))
        wrong = np.flatnonzero((have > 0) & (np.minimum(got, left) < self.floor))
        if not len(wrong):
            return
        c = int(wrong[np.argmin(have[wrong])])
        most = self.possible(c)
        if most < self.floor:
            remedy = f"no split can give it more than {most}: " + (
                f"set data.test.min_per_class={most}" if most else "leave the class out of the source"
            )
        others = f" (and {len(wrong) - 1} more such)" if len(wrong) > 1 else ""
        raise DataError(
            f"class '{self.class_names[c]}' has {have[c]} rows{self._of_groups(c)}: {what} gives {got[c]} to test and "
            f"{left[c]} to train on{others}, below min_per_class={self.floor}; "
            f"{remedy or f'up to {most} are possible with another split: change data.test or lower min_per_class'}"
        )

    def check_time(self, test: Rows, rest: Rows, times: Times | None) -> None:
        """`check` for a cut in time; the remedy is the latest cut that leaves enough test rows of each class."""
        if self.floor is None or times is None:
            return
        cuts = []
        for c in np.flatnonzero(self._counts(np.arange(len(self.y))) >= self.floor):
            cuts.append(np.sort(np.asarray(times)[self.y == c])[-self.floor])
        remedy = ""
        if cuts:
            cut = min(cuts)
            before = self._counts(np.flatnonzero(np.asarray(times) < cut))
            least = before[self._counts(np.arange(len(self.y))) > 0].min()
            remedy = (
                f"set data.test.since='{shown_time(cut)}': every class then has so many test rows, and at least "
                f"{least} before them"
            )
        self.check(test, rest, "data.test=temporal", remedy)

    def possible(self, c: int) -> int:
        """The most rows of class ``c`` that both sides can have, whatever the other classes get."""
        n = int((self.y == c).sum())
        if self.groups is None:
            return n // 2
        sums = 1  # bit k: some groups together hold k rows
        for weight in np.unique(self.groups[self.y == c], return_counts=True)[1].tolist():
            sums |= sums << weight
        return next(k for k in range(n // 2, -1, -1) if sums >> k & 1)

    def _counts(self, rows: Rows) -> NDArray[np.int64]:
        return np.bincount(self.y[rows], minlength=len(self.class_names))

    def _of_groups(self, c: int) -> str:
        return "" if self.groups is None else f" of {len(np.unique(self.groups[self.y == c]))} {self.noun}"
