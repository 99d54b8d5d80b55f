"""The input of a coreset rule, and its base class."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedimb.errors import DataError
from fedimb.selection.budgets import apportion
from fedimb.selection.checks import finite_rows, labels_fit

Picker = Callable[[Tensor, int], Tensor]
"""(positions of a class, number to choose) -> chosen positions."""


@dataclass(frozen=True)
class Candidates:
    """One client's training rows; n of them, C classes of the federation.

    Attributes:
        labels: [n] int64.
        n_classes: C.
        generator: for all random draws.
        embeddings: [n, d] float32 of unit length, by the frozen encoder, or None.
        features: [n, d] float32, penultimate features under the model, or None.
        logits: [n, C] float32 under the model, or None.
        history: [e, n, C] float32 probabilities after each epoch of local warm-up training, in order, or None.
        centres: [C, d] float32 class centres of the whole federation in feature space, NaN if no client has the class;
            or None.
        global_counts: [C] float64 rows of each class in the whole federation, or None.
    """

    labels: Tensor
    n_classes: int
    generator: torch.Generator
    embeddings: Tensor | None = None
    features: Tensor | None = None
    logits: Tensor | None = None
    history: Tensor | None = None
    centres: Tensor | None = None
    global_counts: Tensor | None = None

    def rows_of(self, label: int) -> Tensor:
        """Positions of a class, ascending int64."""
        return torch.nonzero(self.labels == label).flatten()

    def counts(self) -> Tensor:
        """Rows of each class, [C] int64."""
        return torch.bincount(self.labels, minlength=self.n_classes)

    def given(self, field: str) -> Tensor:
        """A field that a rule reads.

        Raises:
            DataError: it is None.
        """
        value: Tensor | None = getattr(self, field)
        if value is None:
            raise DataError(f"the coreset rule reads '{field}', which was not computed: the rule must name it in needs")
        return value


class CoresetRule:
    """Base class. A rule implements `choose`, and `decide` if it decides how many rows of each class to keep.

    ``needs`` names the optional fields of `Candidates` that the rule reads; it may depend on arguments.
    """

    needs: frozenset[str] = frozenset()

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """``count`` of ``rows`` (positions, ascending int64), distinct, in any order; 0 < count < len(rows)."""
        raise NotImplementedError(f"{type(self).__name__} must implement choose()")

    def decide(self, candidates: Candidates, keep: int) -> Tensor:
        """The rule's choice if no numbers per class are given, 0 < keep < n. By default over all rows together."""
        return self.choose(candidates, torch.arange(len(candidates.labels)), keep)

    def select(self, candidates: Candidates, keep: int, per_class: Tensor | None = None) -> Tensor:
        """Choose rows to keep.

        Args:
            keep: how many in total, 0..n.
            per_class: [C] int64 how many of each class, summing to ``keep``, none above the client's rows; None: the
                rule decides.

        Returns:
            positions, ascending int64, distinct, exactly ``keep`` of them (and exactly ``per_class`` if given).

        Raises:
            DataError: a budget that cannot be met, or a needed field that is missing, has the wrong length or is not
                finite.
        """
        n = len(candidates.labels)
        labels_fit(candidates.labels, n, candidates.n_classes, "coreset")
        if not 0 <= keep <= n:
            raise DataError(f"cannot keep {keep} of {n} rows")
        if per_class is not None:
            _check_budget(candidates, keep, per_class)
        for field in sorted(self.needs - {"global_counts"}):
            _check_field(field, candidates.given(field), n)
        if keep in (0, n):
            return torch.arange(keep)
        if per_class is None:
            return self.decide(candidates, keep).sort().values
        return by_class(candidates, per_class, lambda rows, count: self._within(candidates, rows, count))

    def _within(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        return rows if count == len(rows) else self.choose(candidates, rows, count)


class ClasswiseRule(CoresetRule):
    """A rule that works within a class: without numbers per class, every class keeps its share."""

    def decide(self, candidates: Candidates, keep: int) -> Tensor:
        """In proportion to the rows of each class, at least one row each while ``keep`` allows."""
        have = candidates.counts()
        wanted = apportion(have, have, keep)
        return by_class(candidates, wanted, lambda rows, count: self._within(candidates, rows, count))


class ScoreRule(CoresetRule):
    """A rule that keeps the rows with the highest score; ties to the earlier position."""

    def score(self, candidates: Candidates, rows: Tensor) -> Tensor:
        """[len(rows)] float."""
        raise NotImplementedError(f"{type(self).__name__} must implement score()")

    def choose(self, candidates: Candidates, rows: Tensor, count: int) -> Tensor:
        """The ``count`` highest."""
        return rows[torch.argsort(self.score(candidates, rows), descending=True, stable=True)[:count]]


def by_class(candidates: Candidates, per_class: Tensor, pick: Picker) -> Tensor:
    """Apply ``pick`` inside every class that keeps rows; ascending positions."""
    chosen = [
        pick(candidates.rows_of(label), int(count)) for label, count in enumerate(per_class.tolist()) if count > 0
    ]
    return torch.cat(chosen).sort().values if chosen else torch.zeros(0, dtype=torch.int64)


def _check_budget(candidates: Candidates, keep: int, per_class: Tensor) -> None:
    have = candidates.counts()
    if per_class.shape != have.shape or int(per_class.sum()) != keep or bool((per_class < 0).any()):
        raise DataError(f"rows per class {per_class.tolist()} are not {candidates.n_classes} counts summing to {keep}")
    if bool((per_class > have).any()):
        label = int((per_class > have).nonzero()[0])
        raise DataError(f"cannot keep {int(per_class[label])} rows of class {label}: the client has {int(have[label])}")


def _check_field(field: str, value: Tensor, rows: int) -> None:
    if field == "centres":  # NaN marks a class that no client has
        if bool(torch.isinf(value).any()):
            raise DataError("centres hold infinite values: a client's features diverged")
        return
    by_row = value.transpose(0, 1) if field == "history" and value.ndim == 3 else value
    if len(by_row) != rows or (field == "history" and value.shape[0] == 0):
        raise DataError(f"{field} of shape {tuple(value.shape)} does not match {rows} rows")
    finite_rows(by_row, field)
