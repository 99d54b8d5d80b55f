"""What a query rule may look at, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

Which = Literal["global", "local"]


@dataclass(frozen=True)
class Seen:
    """Rows as one model sees them: features [n, d] and logits [n, C] float32."""

    features: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Asked:
    """One client's question: which of n unlabelled rows to label next. Hidden labels are not here.

    Attributes:
        budget: how many, b; at most n.
        n_classes: C.
        labels: [m] int64 of the rows labelled so far.
        pool: the unlabelled rows, by model.
        labelled: the labelled rows, by model.
        which: the model whose probabilities say what is uncertain (rules that fix their model ignore it).
        generator: for whatever is drawn.
        gamma: mean over clients of the global model's class balance (FairFAL), or None.
        prototypes: [C, d] float32 unit class prototypes shared by all clients in the global feature space, NaN where a
            class has none; None: the client's own are used.
        hidden: [n] int64 true labels of the pool: only for a rule whose provenance is ``oracle``; else None.
    """

    budget: int
    n_classes: int
    labels: Tensor
    pool: Mapping[Which, Seen]
    labelled: Mapping[Which, Seen]
    generator: torch.Generator
    which: Which = "global"
    gamma: float | None = None
    prototypes: Tensor | None = None
    hidden: Tensor | None = None
    notes: dict[str, Tensor | float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Rows in the pool, n."""
        return len(next(iter(self.pool.values())).logits)


class QueryRule:
    """Base class.

    ``models``: which models' outputs it reads; ``oracle``: whether it reads hidden labels, and is never ranked.
    """

    models: ClassVar[frozenset[Which]] = frozenset({"global"})
    oracle: ClassVar[bool] = False

    def select(self, asked: Asked) -> Tensor:
        """Positions in the pool, distinct int64 [min(budget, n)], in the order chosen.

        A rule may write what it found into ``asked.notes``, to be logged (numbers, or tensors [C]).
        """
        raise NotImplementedError(f"{type(self).__name__} must implement select()")
