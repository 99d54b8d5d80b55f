"""What a coreset rule may look at, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

Picker = Callable[[Tensor, int], Tensor]
"""(positions of a class, how many of them) -> positions chosen."""


@dataclass(frozen=True)
class Candidates:
    """One client's training rows; n of them, C classes of the federation.

    Attributes:
        labels: [n] int64.
        n_classes: C.
        generator: for whatever is drawn.
        embeddings: [n, d] float32 of unit length, by the frozen encoder, or None.
        features: [n, d] float32, penultimate features under the model, or None.
        logits: [n, C] float32 under the model, or None.
        history: [e, n, C] float32 probabilities after each epoch of local warm-up training, in order, or None.
        centres: [C, d] float32 class centres of the whole federation in feature space, NaN where nobody has the class;
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


class CoresetRule:
    """Base class. ``needs`` names the fields of `Candidates` the rule reads, of those that may be None."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def select(self, candidates: Candidates, keep: int, per_class: Tensor | None = None) -> Tensor:
        """Choose rows to keep.

        Args:
            keep: how many in all, 0..n.
            per_class: [C] int64 how many of each class, summing to ``keep``, none above what the client has; None: the
                rule decides.

        Returns:
            positions, ascending int64, distinct, exactly ``keep`` of them (and exactly ``per_class`` where given).
        """
        raise NotImplementedError(f"{type(self).__name__} must implement select()")


def by_class(candidates: Candidates, per_class: Tensor, pick: Picker) -> Tensor:
    """Apply a choice inside every class that keeps rows."""
    chosen = [
        pick(candidates.rows_of(label), int(count)) for label, count in enumerate(per_class.tolist()) if count > 0
    ]
    return torch.cat(chosen).sort().values if chosen else torch.zeros(0, dtype=torch.int64)
