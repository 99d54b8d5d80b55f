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


@dataclass(frozen=True, eq=False)
class _Tries:
    """Values to try in a column, [k, inputs of the column], and whether values in between make sense."""

    values: NDArray[np.float32]
    number: bool


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

    def _candidates(self, rows: ClientRows) -> list[_Tries]:
        """Per column the values to try; none of a fixed one."""
        found = []
        layout = rows.layout
        for column, name in enumerate(layout.names):
            own = rows.x[:, layout.inputs_of(column)].numpy()
            values, number = np.unique(own, axis=0), False
            if name in self.fixed or column in layout.missing:
                values = values[:0]
            elif not layout.categories[column] and len(values) > _LEVELS:
                number = True
                values = np.unique(np.quantile(own, np.linspace(0, 1, self.steps), method="nearest"))[:, None]
            found.append(_Tries(values.astype(np.float32), number))
        return found

    def _nearest(
        self, rows: ClientRows, i: int, said: int, wanted: int | None, candidates: list[_Tries]
    ) -> _Changed | None:
        start = rows.x[i]
        now, used, spent = start.clone(), list[int](), 0.0
        for _ in range(self.changes):
            tried = [
                (column, torch.from_numpy(value.copy()))
                for column, tries in enumerate(candidates)
                if column not in used
                for value in tries.values
            ]
            if not tried:
                return None
            moved = torch.stack([_put(now, rows.layout, column, value) for column, value in tried])
            costs = np.array([self._size(start, one, c, rows.layout) for one, (c, _) in zip(moved, tried, strict=True)])
            logits = _logits(rows.model, moved)
            margins = _margin(logits, said, wanted)
            if (margins > 0).any():
                ways = [(moved[k], tried[k][0], float(costs[k])) for k in np.flatnonzero(margins > 0)]
                numbers = [tries.number for tries in candidates]
                return self._cheapest(rows, (start, now), (said, wanted), ways, numbers, (used, spent))
            best = int(margins.argmax())
            if costs[best] == 0:
                return None
            now, used, spent = moved[best], [*used, tried[best][0]], spent + float(costs[best])
        return None

    def _cheapest(
        self,
        rows: ClientRows,
        row: tuple[Tensor, Tensor],
        classes: tuple[int, int | None],
        ways: Sequence[tuple[Tensor, int, float]],
        numbers: Sequence[bool],
        before: tuple[list[int], float],
    ) -> _Changed:
        """The cheapest of the changes that flip the class, numbers moved back to where it flips.

        Args:
            row: as it was, and with the columns changed so far.
            classes: said before, and wanted.
            ways: changed row, column and cost of each change that flips the class.
            numbers: of each column, whether values in between make sense.
            before: columns changed so far, and what they cost.
        """
        start, now = row
        nearest: dict[tuple[int, int], tuple[Tensor, int]] = {}  # of a column in one direction only the first counts
        for x, column, _ in sorted(ways, key=lambda way: way[2]):
            up = int((x - now).sum() > 0) if numbers[column] else 0
            nearest.setdefault((column, up), (x, column))
        far = torch.stack([x for x, _ in nearest.values()])
        moves = torch.tensor([numbers[column] for _, column in nearest.values()])[:, None]
        near = torch.where(moves, now, far)
        for _ in range(_BISECTIONS if moves.any() else 0):
            middle = (near + far) / 2
            flips = torch.from_numpy(_margin(_logits(rows.model, middle), *classes) > 0)[:, None]
            near, far = torch.where(flips, near, middle), torch.where(flips, middle, far)
        found = [
            _Changed(x, [*before[0], column], before[1] + self._size(start, x, column, rows.layout))
            for x, (_, column) in zip(far, nearest.values(), strict=True)
        ]
        return min(found, key=lambda one: one.cost)

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
