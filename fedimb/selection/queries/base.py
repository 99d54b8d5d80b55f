"""What a query rule may look at, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedimb.errors import DataError

Which = Literal["global", "local"]
Model = Literal["global", "local", "updated"]


@dataclass(frozen=True)
class Distillation:
    """Local training on the labelled rows, from a fresh start, with the global model as the teacher.

    The objective is (1 - ``share``) cross-entropy + ``share`` T^2 KL(teacher || model); the learning rate is the run's
    times ``lr_factor``. It ends after ``epochs``, or once the objective over all labelled rows has not fallen for
    ``patience`` epochs. Numbers of IFAL (IJCAI 2025); that the patience looks at this objective is ours.
    """

    epochs: int = 500
    share: float = 0.9
    temperature: float = 4.0
    lr_factor: float = 0.1
    patience: int = 5


@dataclass(frozen=True)
class Seen:
    """Rows as one model sees them: features [n, d] and logits [n, C] float32."""

    features: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Asked:
    """One client's question: which of n unlabelled rows to label next.

    The models are ``global``, ``local`` (trained on this client's labelled rows from a fresh start, alone or as
    `QueryRule.distilled` says) and, where the caller has it, ``updated`` (the client's own weights after its last
    round, before they were merged).

    Attributes:
        budget: how many, b; more than n asks for all n.
        n_classes: C, at least 2.
        labels: [m] int64 of the rows labelled so far; m may be 0.
        pool: the unlabelled rows, by model; those that `QueryRule.reads` names at the least.
        labelled: the labelled rows, by the same models.
        which: the model to ask, of the rules that can ask either (``adaptive``; the others fix their models).
        generator: for whatever is drawn.
        gamma: mean over clients of the global model's class balance (FairFAL), or None.
        prototypes: [C, d] float32 unit class prototypes shared by all clients in the global feature space, NaN where a
            class has none; None: the client's own are used.
        hidden: [n] int64 true labels of the pool, or None. `QueryRule.select` hides them from every rule that is not an
            ``oracle``.
        notes: filled by the rule, to be logged.
    """

    budget: int
    n_classes: int
    labels: Tensor
    pool: Mapping[Model, Seen]
    labelled: Mapping[Model, Seen]
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
    """Base class. A rule implements `choose`; callers use `select`.

    ``models``: the models whose outputs it reads whatever is asked; ``optional``: models it reads where they are given;
    ``adaptive``: it reads ``asked.which`` too; ``oracle``: it reads hidden labels, and is never ranked; ``distilled``:
    how its local model learns from the global one too, None where it learns from labels alone.

    Example:
        >>> class Shortest(QueryRule):
        ...     models = frozenset({"global"})
        ...     def choose(self, asked):
        ...         return asked.pool["global"].features.norm(dim=1).argsort()[: asked.budget]
        >>> pool = Seen(features=torch.tensor([[3.0], [1.0], [2.0]]), logits=torch.zeros(3, 2))
        >>> none = Seen(features=torch.zeros(0, 1), logits=torch.zeros(0, 2))
        >>> labels = torch.zeros(0, dtype=torch.int64)
        >>> asked = Asked(2, 2, labels, {"global": pool}, {"global": none}, torch.Generator())
        >>> Shortest().select(asked).tolist()
        [1, 2]
    """

    models: ClassVar[frozenset[Model]] = frozenset()
    optional: ClassVar[frozenset[Model]] = frozenset()
    adaptive: ClassVar[bool] = False
    oracle: ClassVar[bool] = False
    distilled: Distillation | None = None

    def reads(self, which: Which) -> frozenset[Model]:
        """The models whose outputs the caller must give when it asks ``which``."""
        return self.models | ({which} if self.adaptive else frozenset())

    def select(self, asked: Asked) -> Tensor:
        """Positions in the pool, distinct int64 [min(budget, n)], in the order chosen.

        A rule may write what it found into ``asked.notes``, to be logged (numbers, or tensors [C]).

        Raises:
            ValueError: shapes, labels or models that do not fit together, or a negative budget.
            DataError: features or logits that are not finite.
        """
        if asked.budget < 0 or not asked.pool:
            raise ValueError(f"a query needs a budget of at least 0 and a pool; got {asked.budget}, {list(asked.pool)}")
        for model in sorted(self.reads(asked.which) | (self.optional & asked.pool.keys())):
            _check(asked, model)
        if len(asked.labels) > 0 and not 0 <= int(asked.labels.min()) <= int(asked.labels.max()) < asked.n_classes:
            raise ValueError(f"labels must lie in 0..{asked.n_classes - 1}; got {asked.labels.unique().tolist()}")
        if self.oracle and (asked.hidden is None or len(asked.hidden) != asked.size):
            raise ValueError(f"{type(self).__name__} needs the hidden labels of all {asked.size} pool rows")
        budget = min(asked.budget, asked.size)
        if budget == 0:
            return torch.zeros(0, dtype=torch.int64)
        return self.choose(replace(asked, budget=budget, hidden=asked.hidden if self.oracle else None))

    def choose(self, asked: Asked) -> Tensor:
        """What `select` answers, of a question that is checked: 1 <= budget <= n, everything finite."""
        raise NotImplementedError(f"{type(self).__name__} must implement choose()")


def _check(asked: Asked, model: Model) -> None:
    views = {"pool": (asked.pool, asked.size), "labelled": (asked.labelled, len(asked.labels))}
    for view, (seen_by, rows) in views.items():
        if model not in seen_by:
            raise ValueError(f"the query needs the {view} rows as the {model} model sees them; got {sorted(seen_by)}")
        seen = seen_by[model]
        if seen.features.ndim != 2 or seen.logits.shape != (rows, asked.n_classes) or len(seen.features) != rows:
            shapes = f"features {tuple(seen.features.shape)}, logits {tuple(seen.logits.shape)}"
            raise ValueError(f"the query's {view} rows, {model} model: {shapes} for {rows} rows, C={asked.n_classes}")
        for what, values in (("features", seen.features), ("logits", seen.logits)):
            bad = ~torch.isfinite(values).all(1)
            if bad.any():
                first = int(bad.long().argmax())
                raise DataError(
                    f"query: {what} of {int(bad.sum())} of {rows} {view} rows are not finite under the {model} model, "
                    f"the first at position {first}: look at that row's data, and whether training diverged"
                )
