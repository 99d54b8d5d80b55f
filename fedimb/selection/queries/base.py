"""The input of a query rule, and its base class."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fedimb.errors import DataError

Which = Literal["global", "local"]
Model = Literal["global", "local", "updated"]
_RENAMED = {"Asked": "QueryInput", "Seen": "ModelOutputs"}  # the old names go with the next release


@dataclass(frozen=True)
class Distillation:
    """Local training on the labelled rows, from a fresh start, with the global model as the teacher.

    The objective is (1 - ``share``) cross-entropy + ``share`` T^2 KL(teacher || model); the learning rate is the run's
    times ``lr_factor``. It ends after ``epochs``, or once the objective over all labelled rows has not fallen for
    ``patience`` epochs. Values from IFAL (IJCAI 2025); the paper does not say which value the patience refers to.
    """

    epochs: int = 500
    share: float = 0.9
    temperature: float = 4.0
    lr_factor: float = 0.1
    patience: int = 5


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs of one model for some rows: features [n, d] and logits [n, C] float32."""

    features: Tensor
    logits: Tensor


@dataclass(frozen=True)
class QueryInput:
    """Input for one client's choice: which of n unlabelled rows to label next.

    The models are ``global``, ``local`` (trained on this client's labelled rows from a fresh start, alone or as
    `QueryRule.distilled` says) and, if available, ``updated`` (the client's own weights after its last
    round, before they were merged).

    Attributes:
        budget: number of rows to choose, b; more than n means all n.
        n_classes: C, at least 2.
        labels: [m] int64 of the rows labelled so far; m may be 0.
        pool: outputs for the unlabelled rows, by model; at least those that `QueryRule.reads` names.
        labelled: outputs for the labelled rows, by the same models.
        which: the model to use, for rules that can use either (``adaptive``; other rules have fixed models).
        generator: for all random draws.
        gamma: mean over clients of the global model's class balance (FairFAL), or None.
        prototypes: [C, d] float32 unit class prototypes shared by all clients in the global feature space, NaN for a
            class without one; None: the client's own are used.
        hidden: [n] int64 true labels of the pool, or None. `QueryRule.select` hides them from every rule that is not an
            ``oracle``.
        notes: filled by the rule, to be logged.
    """

    budget: int
    n_classes: int
    labels: Tensor
    pool: Mapping[Model, ModelOutputs]
    labelled: Mapping[Model, ModelOutputs]
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

    ``models``: the models whose outputs it always reads; ``optional``: models it reads if they are given; ``adaptive``:
    it also reads the model ``query.which``; ``oracle``: it reads hidden labels, and is never ranked; ``distilled``: how
    its local model also learns from the global one, None if it learns from labels only.

    Example:
        >>> class Shortest(QueryRule):
        ...     models = frozenset({"global"})
        ...     def choose(self, query):
        ...         return query.pool["global"].features.norm(dim=1).argsort()[: query.budget]
        >>> pool = ModelOutputs(features=torch.tensor([[3.0], [1.0], [2.0]]), logits=torch.zeros(3, 2))
        >>> none = ModelOutputs(features=torch.zeros(0, 1), logits=torch.zeros(0, 2))
        >>> labels = torch.zeros(0, dtype=torch.int64)
        >>> query = QueryInput(2, 2, labels, {"global": pool}, {"global": none}, torch.Generator())
        >>> Shortest().select(query).tolist()
        [1, 2]
    """

    models: ClassVar[frozenset[Model]] = frozenset()
    optional: ClassVar[frozenset[Model]] = frozenset()
    adaptive: ClassVar[bool] = False
    oracle: ClassVar[bool] = False
    distilled: Distillation | None = None

    def reads(self, which: Which) -> frozenset[Model]:
        """The models whose outputs the caller must provide for ``which``."""
        return self.models | ({which} if self.adaptive else frozenset())

    def select(self, query: QueryInput) -> Tensor:
        """Positions in the pool, distinct int64 [min(budget, n)], in the order chosen.

        A rule may write diagnostics into ``query.notes``, which are logged (numbers, or tensors [C]).

        Raises:
            ValueError: shapes, labels or models that do not match, or a negative budget.
            DataError: features or logits that are not finite.
        """
        if query.budget < 0 or not query.pool:
            raise ValueError(f"a query needs a budget of at least 0 and a pool; got {query.budget}, {list(query.pool)}")
        for model in sorted(self.reads(query.which) | (self.optional & query.pool.keys())):
            _check(query, model)
        if len(query.labels) > 0 and not 0 <= int(query.labels.min()) <= int(query.labels.max()) < query.n_classes:
            raise ValueError(f"labels must lie in 0..{query.n_classes - 1}; got {query.labels.unique().tolist()}")
        if self.oracle and (query.hidden is None or len(query.hidden) != query.size):
            raise ValueError(f"{type(self).__name__} needs the hidden labels of all {query.size} pool rows")
        budget = min(query.budget, query.size)
        if budget == 0:
            return torch.zeros(0, dtype=torch.int64)
        return self.choose(replace(query, budget=budget, hidden=query.hidden if self.oracle else None))

    def choose(self, query: QueryInput) -> Tensor:
        """The positions for `select`; the input is already checked: 1 <= budget <= n, everything finite."""
        raise NotImplementedError(f"{type(self).__name__} must implement choose()")


def _check(query: QueryInput, model: Model) -> None:
    views = {"pool": (query.pool, query.size), "labelled": (query.labelled, len(query.labels))}
    for view, (seen_by, rows) in views.items():
        if model not in seen_by:
            raise ValueError(f"the query needs the {view} rows as the {model} model sees them; got {sorted(seen_by)}")
        seen = seen_by[model]
        if seen.features.ndim != 2 or seen.logits.shape != (rows, query.n_classes) or len(seen.features) != rows:
            shapes = f"features {tuple(seen.features.shape)}, logits {tuple(seen.logits.shape)}"
            raise ValueError(f"the query's {view} rows, {model} model: {shapes} for {rows} rows, C={query.n_classes}")
        for what, values in (("features", seen.features), ("logits", seen.logits)):
            bad = ~torch.isfinite(values).all(1)
            if bad.any():
                first = int(bad.long().argmax())
                raise DataError(
                    f"query: {what} of {int(bad.sum())} of {rows} {view} rows are not finite under the {model} model, "
                    f"the first at position {first}: check that row's data, and whether training diverged"
                )


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is called {_RENAMED[name]} now: use that", DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]
