"""Centre, scale and impute the columns of a table, or the channels of signals, from statistics that clients can sum: no
row leaves its site."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.data.rows import RowLists

_CHUNK_VALUES = 1 << 22  # values of signals summed at once: 32 MiB as float64


@dataclass(frozen=True, eq=False)
class Scaling:
    """``(x - mean) / deviation`` per column; missing values become 0, the mean.

    Of signals [n, channels, length] a channel stands for a column, and F is [channels, 1].

    Attributes:
        mean: [F] float32; 0 for a column that is not scaled.
        deviation: [F] float32 > 0; 1 for a column that is not scaled, and for a constant one.
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows [n, F] float32 -> scaled rows, a new array without NaN."""
        out: NDArray[np.float32] = np.nan_to_num((x - self.mean) / self.deviation, copy=False, nan=0.0)
        return out

    def facts(self) -> dict[str, object]:
        """As plain lists, for JSON: a float32 goes through JSON unchanged."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    @staticmethod
    def from_facts(facts: dict[str, object]) -> "Scaling":
        """Inverse of `facts`."""
        return Scaling(np.array(facts["mean"], np.float32), np.array(facts["deviation"], np.float32))


def prepared(rows: NDArray[np.generic], scale: float, scaling: Scaling | None) -> NDArray[np.float32]:
    """Rows [n, *shape] of a source -> model inputs, float32: times ``scale``, then ``scaling``."""
    x = np.asarray(rows, dtype=np.float32) if scale == 1 else np.multiply(rows, np.float32(scale), dtype=np.float32)
    return x if scaling is None else scaling(x)


def column_sums(x: NDArray[np.generic]) -> NDArray[np.float64]:
    """What one client would send: [3, F] number of present values, their sum and their sum of squares.

    Of signals [n, channels, length] over all samples of a channel: [3, channels, 1]; of spectrograms of them, x [n,
    channels, bands, frames], [3, channels, 1, 1].
    """
    if x.ndim <= 2:
        return np.stack(_sums_of(x, 0))
    channels = (-1, *[1] * (x.ndim - 2))
    return np.stack([part.reshape(channels) for part in _sums_of(x, (0, *range(2, x.ndim)))])


def _sums_of(x: NDArray[np.generic], axis: int | tuple[int, ...]) -> list[NDArray[np.float64]]:
    values = np.asarray(x, dtype=np.float64)
    present = ~np.isnan(values)
    values = np.where(present, values, 0.0)
    return [present.sum(axis).astype(np.float64), values.sum(axis), (values**2).sum(axis)]


def sums_of_rows(x: NDArray[np.generic], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """`column_sums` of these rows of x: of a table at once; of signals some at a time, since windows that overlap may
    need far more memory than their recording."""
    if x.ndim == 2:
        return column_sums(x[rows])
    at_once = max(1, _CHUNK_VALUES // max(1, math.prod(x.shape[1:])))
    total = np.zeros((3, x.shape[1], *[1] * (x.ndim - 2)))
    for start in range(0, len(rows), at_once):
        total += column_sums(x[rows[start : start + at_once]])
    return total


def federated_scaling(clients: list[NDArray[np.float32]], scaled: NDArray[np.bool_]) -> Scaling:
    """Mean and population deviation over all clients' training rows, from their `column_sums` alone.

    Args:
        clients: each [n_k, F], added in this order.
        scaled: [F], the columns to change. A column without any value becomes 0 everywhere.
    """
    return scaling_of(np.sum([column_sums(x) for x in clients], axis=0), scaled)


def scaling_of_rows(x: NDArray[np.generic], lists: RowLists, scaled: NDArray[np.bool_]) -> Scaling:
    """`federated_scaling` of ``[x[rows] for rows in lists]``, to the bit, without a loop over clients.

    Args:
        x: [n, F], all rows; of signals [n, channels, length].
    """
    if x.ndim > 2:
        return scaling_of(np.sum([sums_of_rows(x, rows) for rows in lists], axis=0), scaled)
    total = np.zeros((3, x.shape[1]))
    for start in range(0, len(lists), _CLIENTS):
        sizes = lists.sizes[start : start + _CLIENTS]
        sums = np.zeros((len(sizes), *total.shape))
        for size in np.unique(sizes[sizes > 0]).tolist():  # clients of equal size are one array
            members = np.flatnonzero(sizes == size)
            per = max(1, _CHUNK * 16 // size)
            for some in np.split(members, range(per, len(members), per)):
                at = lists.offsets[start + some][:, None] + np.arange(size)
                sums[some] = np.stack(_sums_of(x[lists.rows[at]], 1), axis=1)
        total = np.sum(np.concatenate([total[None], sums]), axis=0)
    return scaling_of(total, scaled)


def scaling_of(sums: NDArray[np.float64], scaled: NDArray[np.bool_]) -> Scaling:
    """The scaling of all clients' `column_sums`, added up: [3, F]."""
    count, total, squares = sums
    mean = np.where(scaled & (count > 0), total / np.maximum(count, 1), 0.0)
    variance = np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0)
    # Cancellation leaves about 1e-16 of the squares where a column is constant: that is not variance.
    varies = scaled & (count > 0) & (variance > 1e-12 * np.maximum(mean**2, 1e-12))
    deviation = np.where(varies, np.sqrt(variance), 1.0)
    return Scaling(mean.astype(np.float32), deviation.astype(np.float32))


_CLIENTS = 65_536  # clients summed at once
_CHUNK = 4096  # rows summed at once: whole numbers of 8 bytes are eight times the size of stored pixels


def channel_sums(x: NDArray[np.generic], rows: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """What one client would send of its images: [3, channels] number of values, their sum and their sum of squares.

    Whole numbers are added as such: the sum over clients is then that over all their images, to the last bit.

    Args:
        x: stored rows [N, *shape], before the store's scale.
        rows: the client's, [n].
        shape: of one image, (height, width) or (channels, height, width).
    """
    channels = shape[0] if len(shape) == 3 else 1
    whole = np.issubdtype(x.dtype, np.integer)
    total = np.zeros((2, channels), np.int64 if whole else np.float64)
    for start in range(0, len(rows), _CHUNK):
        values = np.asarray(x[rows[start : start + _CHUNK]], total.dtype).reshape(-1, channels, shape[-2] * shape[-1])
        total += np.stack([values.sum((0, 2)), (values**2).sum((0, 2))])
    count = float(len(rows) * shape[-2] * shape[-1])
    return np.vstack([np.full(channels, count), total.astype(np.float64)])
