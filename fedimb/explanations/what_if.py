"""what_if: the smallest change of a row after which the model says another class (counterfactuals), for tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.contracts.platform import EXPLAINED_RECORD
from fedimb.errors import ConfigError, nearest
from fedimb.explanations.base import (
    ClientArrays,
    ClientRows,
    Explained,
    Explanation,
    Floor,
    choose_rows,
)
from fedimb.explanations.layout import InputLayout
from fedimb.models.base import Classifier
from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, PositiveCount

_BISECTIONS = 16
_LEVELS = 10
"""Most different values of a column that is changed from level to level, not in between."""


@dataclass
class _Changed:
    """A row that the model gives another class: its inputs, the columns changed, and the cost."""

    x: Tensor
    columns: list[int]
    cost: float


@register("explanation", "what_if")
class WhatIf(Explanation):
    """Nearest change that flips the class (Wachter et al., 2018), in L1 over a table's columns.

    All changes of one column are tried, and the cheapest is taken; if none flips the class, the one that brings it
    closest is kept and a second column is tried, which need not give the nearest pair. Numbers move between values that
    the client's rows have, to the point where the class flips; columns of at most ten values from one to another; a
    category is exchanged for one that the client has rows of, and costs ``category_cost``. What says that a value is
    missing is never changed.

    Args:
        floor: fewest people of a class behind a figure; of a column, fewest whose change includes it.
        rows: most rows of a class that a client explains.
        changes: most columns changed in a row.
        steps: values of a number that are tried.
        category_cost: of another category, in the units of the model's inputs (of a scaled table: deviations).
        to: name of the class wanted; null: any other one. Rows that have it already are left out.
        fixed: columns that cannot be changed, such as age.
    """

    flags: ClassVar[dict[str, Any]] = {"sends": (EXPLAINED_RECORD,)}
    name = "what_if"
    explains = "change"
    tables_only = True
    one_class = True

    def __init__(
        self,
        floor: Annotated[int, Floor] = 10,
        rows: PositiveCount = 50,
        changes: PositiveCount = 3,
        steps: PositiveCount = 8,
        category_cost: NonNegative = 1.0,
        to: str | None = None,
        fixed: tuple[str, ...] = (),
    ) -> None:
        if rows < floor:
            raise ConfigError(f"explanation 'what_if': rows={rows} is below floor={floor}: no class would be shown")
        self.floor, self.rows, self.changes, self.steps = floor, rows, changes, steps
        self.category_cost, self.to, self.fixed = category_cost, to, tuple(fixed)

    def check(self, model: Classifier, layout: InputLayout, task: str, class_names: Sequence[str]) -> None:
        """Refuse a class or a column that the data lack."""
        super().check(model, layout, task, class_names)
        if self.to is not None and self.to not in class_names:
            raise ConfigError(f"explanation 'what_if': to={self.to}: no such class.{nearest(self.to, class_names)}")
        for name in self.fixed:
            if layout.named and name not in layout.names:  # a coordinator does not know them: the sites check
                raise ConfigError(f"explanation 'what_if': fixed: no column '{name}'.{nearest(name, layout.names)}")

    def at_client(self, rows: ClientRows) -> Explained:
        """What changes by class, and every row's change for the client's own folder."""
        classes, columns = len(rows.class_names), len(rows.layout.names)
        rng = np.random.default_rng(rows.seed)
        said = _classes(rows.model, rows.x)
        wanted = None if self.to is None else rows.class_names.index(self.to)
        ready = np.where(said == wanted, -1, rows.y) if wanted is not None else rows.y
        chosen = choose_rows(ready, rows.people, classes, self.rows, self.floor, rng)
        candidates = self._candidates(rows)
        by_class: dict[str, NDArray[Any]] = {
            "rows": np.array([len(own) for own in chosen], np.int64),
            "flipped": np.zeros(classes, np.int64),
            "changed": np.zeros((classes, columns), np.float32),
            "amount": np.zeros((classes, columns), np.float32),
            "distance": np.zeros(classes, np.float32),
        }
        found = Explained(by_class, text=["row,class,said,then,column,from,to"])
        for c, own in enumerate(chosen):
            flips = [(int(i), self._nearest(rows, int(i), int(said[i]), wanted, candidates)) for i in own]
            done = [(i, one) for i, one in flips if one is not None]
            for i, one in done:
                found.text += self._lines(rows, i, int(said[i]), one)
            if len(np.unique(rows.people[[i for i, _ in done]])) < self.floor:
                continue
            by_class["flipped"][c] = len(done)
            by_class["distance"][c] = np.mean([one.cost for _, one in done])
            for column in range(columns):
                with_it = [(i, one) for i, one in done if column in one.columns]
                if len(np.unique(rows.people[[i for i, _ in with_it]])) >= self.floor:
                    by_class["changed"][c, column] = len(with_it) / len(done)
                    sizes = [self._size(rows.x[i], one.x, column, rows.layout) for i, one in with_it]
                    by_class["amount"][c, column] = np.mean(sizes)
        return found

    def _candidates(self, rows: ClientRows) -> list[NDArray[np.float32]]:
        """Per column the values to try: [k, inputs of the column]; none of a fixed one."""
        found = []
        layout = rows.layout
        for column, name in enumerate(layout.names):
            own = rows.x[:, layout.inputs_of(column)].numpy()
            if name in self.fixed or column in layout.missing or not len(own):
                found.append(np.zeros((0, own.shape[1]), np.float32))
            elif layout.categories[column]:
                found.append(np.unique(own, axis=0))
            else:
                values = np.unique(own)
                if len(values) > _LEVELS:
                    values = np.unique(np.quantile(own, np.linspace(0, 1, self.steps), method="nearest"))
                found.append(values[:, None].astype(np.float32))
        return found

    def _is_number(self, rows: ClientRows, column: int) -> bool:
        """Whether values between those of the client's rows make sense."""
        at = rows.layout.inputs_of(column)
        return not rows.layout.categories[column] and len(torch.unique(rows.x[:, at])) > _LEVELS

    def _nearest(
        self, rows: ClientRows, i: int, said: int, wanted: int | None, candidates: list[NDArray[np.float32]]
    ) -> _Changed | None:
        start = rows.x[i]
        now, used, spent = start.clone(), list[int](), 0.0
        for _ in range(self.changes):
            tried = [
                (column, torch.from_numpy(value.copy()))
                for column, values in enumerate(candidates)
                if column not in used
                for value in values
            ]
            if not tried:
                return None
            moved = torch.stack([_put(now, rows.layout, column, value) for column, value in tried])
            costs = np.array([self._size(start, one, c, rows.layout) for one, (c, _) in zip(moved, tried, strict=True)])
            logits = _logits(rows.model, moved)
            margins = _margin(logits, said, wanted)
            if (margins > 0).any():
                return self._cheapest(rows, start, now, said, wanted, tried, margins, costs, (used, spent))
            best = int(margins.argmax())
            if costs[best] == 0:
                return None
            now, used, spent = moved[best], [*used, tried[best][0]], spent + float(costs[best])
        return None

    def _cheapest(
        self,
        rows: ClientRows,
        start: Tensor,
        now: Tensor,
        said: int,
        wanted: int | None,
        tried: Sequence[tuple[int, Tensor]],
        margins: NDArray[np.float32],
        costs: NDArray[np.float64],
        before: tuple[list[int], float],
    ) -> _Changed:
        """The cheapest of the changes that flip the class, numbers moved back to where it flips."""
        best: _Changed | None = None
        for k in np.flatnonzero(margins > 0):
            column, value = tried[k]
            cost = float(costs[k])
            if self._is_number(rows, column):
                value = self._boundary(rows, now, column, value, said, wanted)
                cost = self._size(start, _put(now, rows.layout, column, value), column, rows.layout)
            if best is None or before[1] + cost < best.cost:
                best = _Changed(_put(now, rows.layout, column, value), [*before[0], column], before[1] + cost)
        assert best is not None
        return best

    def _boundary(
        self, rows: ClientRows, now: Tensor, column: int, far: Tensor, said: int, wanted: int | None
    ) -> Tensor:
        """The value next to ``now``'s at which the class flips, on the way to ``far``, where it has."""
        near = now[rows.layout.inputs_of(column)]
        for _ in range(_BISECTIONS):
            middle = (near + far) / 2
            logits = _logits(rows.model, _put(now, rows.layout, column, middle)[None])
            if _margin(logits, said, wanted)[0] > 0:
                far = middle
            else:
                near = middle
        return far

    def _size(self, x: Tensor, changed: Tensor, column: int, layout: InputLayout) -> float:
        at = layout.inputs_of(column)
        moved = (x[at] - changed[at]).abs()
        if layout.categories[column]:
            return self.category_cost * float(moved.max() > 0)
        return float(moved.sum())

    def _lines(self, rows: ClientRows, i: int, said: int, one: _Changed) -> list[str]:
        layout, then = rows.layout, int(_classes(rows.model, one.x[None])[0])
        lines = []
        for column in one.columns:
            at = layout.inputs_of(column)
            before, after = (self._shown(layout, column, x[at]) for x in (rows.x[i], one.x))
            names = [rows.class_names[c] for c in (int(rows.y[i]), said, then)]
            cells = [str(i), *names, layout.names[column], before, after]
            lines.append(",".join('"' + cell.replace('"', '""') + '"' for cell in cells))
        return lines

    @staticmethod
    def _shown(layout: InputLayout, column: int, values: Tensor) -> str:
        if categories := layout.categories[column]:
            return categories[int(values.argmax())] if float(values.max()) > 0 else "none"
        at = layout.inputs_of(column)[0]
        return f"{float(values[0]) * float(layout.unit[at]) + float(layout.centre[at]):.4g}"

    def combine(
        self, replies: Mapping[int, ClientArrays], layout: InputLayout, class_names: Sequence[str]
    ) -> dict[str, Any]:
        """Shares of the changed rows and mean changes over all clients, amounts in the source's units."""
        every = list(replies.values())
        rows = np.minimum(np.stack([one["rows"] for one in every]), self.rows)
        flipped = np.minimum(np.stack([one["flipped"] for one in every]), rows)
        number = flipped[:, :, None] * np.stack([one["changed"] for one in every])
        total = np.maximum(flipped.sum(axis=0), 1)
        share = number.sum(axis=0) / total[:, None]
        amount = (number * np.stack([one["amount"] for one in every])).sum(axis=0) / np.maximum(number.sum(axis=0), 1)
        unit = np.ones(share.shape[1])  # where only the sites know the columns, in the units of the model's inputs
        if len(unit) == len(layout.names):
            unit = np.array([layout.unit[layout.inputs_of(g)[0]] for g in range(len(unit))])
            unit = np.where([bool(own) for own in layout.categories], 1.0, unit)
        distance = (flipped * np.stack([one["distance"] for one in every])).sum(axis=0) / total
        return {
            "rows": rows.sum(axis=0).tolist(),
            "clients": (rows > 0).sum(axis=0).tolist(),
            "kind": layout.kind,
            "features": list(layout.names),
            "to": self.to,
            "flipped": flipped.sum(axis=0).tolist(),
            "changed": np.round(share, 4).tolist(),
            "amount": np.round(amount * unit, 6).tolist(),
            "distance": np.round(distance, 4).tolist(),
        }


def _put(x: Tensor, layout: InputLayout, column: int, value: Tensor) -> Tensor:
    changed = x.clone()
    changed[layout.inputs_of(column)] = value
    return changed


def _logits(model: Classifier, x: Tensor) -> Tensor:
    from fedimb.training.forward import forward_batched

    return forward_batched(model, x)[1]


def _classes(model: Classifier, x: Tensor) -> NDArray[np.int64]:
    found: NDArray[np.int64] = _logits(model, x).argmax(dim=1).cpu().numpy()
    return found


def _margin(logits: Tensor, said: int, wanted: int | None) -> NDArray[np.float32]:
    """[n] by how much another class (or the wanted one) is above all others; above 0 if it is predicted."""
    others = logits.clone()
    if wanted is None:
        others[:, said] = -torch.inf
        return (others.max(dim=1).values - logits[:, said]).cpu().numpy()
    others[:, wanted] = -torch.inf
    return (logits[:, wanted] - others.max(dim=1).values).cpu().numpy()
