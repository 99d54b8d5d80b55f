"""How the inputs of a row are grouped for people: a table's columns, squares of a picture, windows of a signal."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedimb.data.inputs import TableColumns
from fedimb.data.scaling import Scaling
from fedimb.shapes import may_be_signal

LARGEST_SIDE, LONGEST = 32, 128
"""Places of a map along a side of a picture, and along a signal; larger ones are averaged down to so many."""


@dataclass(frozen=True, eq=False)
class InputLayout:
    """What the F values of a row mean.

    Attributes:
        shape: of one row.
        kind: ``table``, ``picture`` or ``signal`` [channels, length].
        names: of a table's G columns; () otherwise.
        group: [F] int64, the column of each value of a table's row; () otherwise.
        categories: of each column its categories in the order of its inputs; () for a number.
        missing: columns that only say whether another one is missing.
        named: whether the names are the columns' own, not numbers.
        centre, unit: [F] float32; a value v of the model's input is ``v * unit + centre`` in the source's units.
    """

    shape: tuple[int, ...]
    kind: Literal["table", "picture", "signal"]
    names: tuple[str, ...]
    group: NDArray[np.int64]
    categories: tuple[tuple[str, ...], ...]
    missing: frozenset[int]
    centre: NDArray[np.float32]
    unit: NDArray[np.float32]
    named: bool = False

    @staticmethod
    def of(
        shape: tuple[int, ...],
        model: nn.Module,
        columns: TableColumns | None = None,
        scaling: Scaling | None = None,
        scale: float = 1.0,
    ) -> "InputLayout":
        """The layout of rows of this shape.

        Args:
            shape: of one row.
            model: its layers tell a signal from a grey picture, which both have two axes.
            columns: of a table, if it is known.
            scaling, scale: what was done to the source's values.
        """
        size = int(np.prod(shape))
        centre, unit = np.zeros(size, np.float32), np.full(size, 1 / scale, np.float32)
        if scaling is not None:
            centre, unit = scaling.mean.astype(np.float32) / scale, scaling.deviation.astype(np.float32) / scale
        if len(shape) != 1:
            signal = len(shape) == 2 and _is_signal(shape, model)
            kind: Literal["picture", "signal"] = "signal" if signal else "picture"
            return InputLayout(shape, kind, (), np.zeros(0, np.int64), (), frozenset(), centre, unit)
        if columns is None or len(columns.inputs) != size:
            names = tuple(f"input {at}" for at in range(size))
            return InputLayout(shape, "table", names, np.arange(size), ((),) * size, frozenset(), centre, unit)
        indicators = tuple(name for name in columns.names if name in columns.indicators)
        names = (*columns.names, *(f"{name} missing" for name in indicators))
        categories = (*(columns.categories.get(name, ()) for name in columns.names), *(() for _ in indicators))
        widths = [len(own) or 1 for own in categories]
        if sum(widths) != size:  # a column whose single category has no input
            raise ValueError(f"{sum(widths)} inputs of the named columns, and {size} values in a row")
        group = np.repeat(np.arange(len(names)), widths)
        missing = frozenset(range(len(columns.names), len(names)))
        return InputLayout(shape, "table", names, group, categories, missing, centre, unit, True)

    def inputs_of(self, column: int) -> NDArray[np.int64]:
        """Positions of a column's inputs in a row."""
        return np.flatnonzero(self.group == column)

    def feature_mask(self, square: int) -> Tensor:
        """[1, *shape] int64: the group of each value that is switched on and off together.

        Args:
            square: side of a picture's squares in pixels, over all channels; length of a signal's windows, per channel.
        """
        if self.kind == "table":
            return torch.from_numpy(self.group.copy())[None]
        if self.kind == "signal":
            channels, length = self.shape
            window = np.arange(length) // square
            mask = np.arange(channels)[:, None] * (window[-1] + 1) + window
            return torch.from_numpy(mask.astype(np.int64))[None]
        high, wide = self.shape[-2:]
        rows, across = np.arange(high) // square, np.arange(wide) // square
        mask = rows[:, None] * (across[-1] + 1) + across
        return torch.from_numpy(np.broadcast_to(mask, self.shape).astype(np.int64).copy())[None]

    def maps(self, attributions: Tensor) -> Tensor:
        """Attributions [n, *shape] -> shares of their size [n, G], [n, h, w] or [n, channels, l], rows summing to 1.

        A table's one-hot columns are added up first, a picture's channels after taking the size. A row that is
        attributed nothing gets zeros.
        """
        values = attributions.detach().float()
        if self.kind == "table":
            summed = values.new_zeros(len(values), len(self.names))
            shares = summed.index_add(1, torch.from_numpy(self.group.copy()), values).abs()
        elif self.kind == "signal":
            shares = values.abs()
            if shares.shape[-1] > LONGEST:
                shares = nn.functional.adaptive_avg_pool1d(shares, LONGEST)
        else:
            shares = values.abs() if values.dim() == 3 else values.abs().sum(dim=1)
            if max(shares.shape[1:]) > LARGEST_SIDE:
                height, width = (min(LARGEST_SIDE, side) for side in shares.shape[1:])
                shares = nn.functional.adaptive_avg_pool2d(shares[:, None], (height, width))[:, 0]
        total = shares.flatten(1).sum(dim=1).clamp_min(1e-30).view(-1, *[1] * (shares.dim() - 1))
        return shares / total


def _is_signal(shape: tuple[int, ...], model: nn.Module) -> bool:
    """What the model takes rows of two axes for; of a model that does not say, what they are."""
    modules = list(model.modules())
    if any(isinstance(module, nn.Conv2d) for module in modules):
        return False
    return any(isinstance(module, nn.Conv1d | nn.RNNBase) for module in modules) or may_be_signal(shape)
