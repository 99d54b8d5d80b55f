"""Base of explanations: what a client computes, what of it may leave, and what the server makes of all replies.

A client's reply holds arrays by class over at least ``floor`` people of that class (zeros where there are fewer), and
figures over all its rows. Single rows go into the client's own folder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedimb.contracts.platform import EXPLAINED_OVERALL_RECORD, EXPLAINED_RECORD
from fedimb.errors import ConfigError
from fedimb.explanations.layout import InputLayout
from fedimb.models.base import Classifier
from fedimb.registry.arguments import Range

LEAST_FLOOR = 3
Floor = Range(LEAST_FLOOR)
"""Fewest people behind a figure that leaves."""

ClientArrays = Mapping[str, NDArray[Any]]
"""One client's arrays of an explanation, by name."""


@dataclass(frozen=True, eq=False)
class ClientRows:
    """A client's rows and the model that is explained on them.

    Attributes:
        model: in evaluation mode, on the CPU.
        x: [n, *shape] float32 inputs of the model.
        y: [n] int64 class ids; of several labels the rarest.
        people: [n] int64, whose row each is; the row's own number if the data name nobody.
        held_out: [m, *shape] rows that were not trained on.
        class_names: C names.
        layout: what the inputs mean.
        seed: of this client's draws.
        with_random_weights: k -> the same model, its weights drawn anew; k from 0.
    """

    model: Classifier
    x: Tensor
    y: NDArray[np.int64]
    people: NDArray[np.int64]
    held_out: Tensor
    class_names: tuple[str, ...]
    layout: InputLayout
    seed: int
    with_random_weights: Callable[[int], Classifier]


@dataclass
class Explained:
    """What a client found.

    Attributes:
        by_class: arrays with the classes along their first axis; a class with too few people has zeros in all of them.
        overall: arrays over all of the client's rows.
        private: arrays about single rows, which stay in the client's folder; ``index`` are positions in `ClientRows`.
        text: the same for people to read: lines of a CSV; empty: none.
    """

    by_class: dict[str, NDArray[Any]] = field(default_factory=dict)
    overall: dict[str, NDArray[Any]] = field(default_factory=dict)
    private: dict[str, NDArray[Any]] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)


class Explanation:
    """Base class. A subclass registers under kind ``explanation``; its settings include ``floor``.

    Attributes:
        needs: package that it needs, and the extra that brings it; empty: none.
        tables_only: whether it explains tables only.
        one_class: whether rows must have one class each.
        explains: what it gives: ``attribution``, ``tree``, ``change`` or ``nothing``; says how reports show it.
    """

    flags: ClassVar[dict[str, Any]] = {"sends": (EXPLAINED_RECORD, EXPLAINED_OVERALL_RECORD)}
    needs: tuple[str, str] | tuple[()] = ()
    tables_only = False
    one_class = False
    explains = "nothing"
    name = ""

    def check(self, model: Classifier, layout: InputLayout, task: str, class_names: Sequence[str]) -> None:
        """Refuse what it cannot explain, before any work.

        Args:
            task: ``multiclass`` or ``multilabel``.

        Raises:
            ConfigError: a missing package, rows of another kind, or rows with several labels; names the remedy.
        """
        where = f"explanation '{self.name}'"
        if self.needs and find_spec(self.needs[0]) is None:
            raise ConfigError(f"{where} needs {self.needs[0]}: pip install 'fedimb[{self.needs[1]}]'")
        if self.tables_only and layout.kind != "table":
            raise ConfigError(
                f"{where} explains the columns of a table, and these rows are {layout.kind}s of shape "
                f"{list(layout.shape)}: use integrated_gradients, or grad_cam"
            )
        if self.one_class and task != "multiclass":
            raise ConfigError(
                f"{where} needs one class per row, but these rows have several labels: use integrated_gradients"
            )

    def at_client(self, rows: ClientRows) -> Explained:
        """Explain a client's rows."""
        raise NotImplementedError(f"{type(self).__name__} must implement at_client()")

    def combine(
        self, replies: Mapping[int, ClientArrays], layout: InputLayout, class_names: Sequence[str]
    ) -> dict[str, Any]:
        """What all clients' arrays say together, as JSON values.

        Args:
            replies: client id -> its arrays, those by class and those over all rows.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement combine()")


def choose_rows(
    y: NDArray[np.int64], people: NDArray[np.int64], n_classes: int, most: int, floor: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Up to ``most`` rows of each class, of as many people as possible: positions in rising order.

    Args:
        y, people: [n] class and person of each row.
        floor: a class whose chosen rows belong to fewer people gets none.
        rng: draws the rows.
    """
    chosen = []
    for c in range(n_classes):
        own = rng.permutation(np.flatnonzero(y == c))
        turn = np.zeros(len(own), np.int64)  # a person's second row comes after everybody's first
        seen: dict[int, int] = {}
        for at, person in enumerate(people[own].tolist()):
            turn[at] = seen.get(person, 0)
            seen[person] = int(turn[at]) + 1
        own = own[np.argsort(turn, kind="stable")][:most]
        enough = len(np.unique(people[own])) >= floor
        chosen.append(np.sort(own) if enough else own[:0])
    return chosen


def weighted_mean(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over clients of figures by class [K, C, ...], weighted by their rows [K, C]; zeros where there are none."""
    weights = rows.reshape(*rows.shape, *[1] * (values.ndim - 2)).astype(np.float64)
    total = np.maximum(weights.sum(axis=0), 1.0)
    mean: NDArray[np.float64] = (values.astype(np.float64) * weights).sum(axis=0) / total
    return mean
