"""Rows that occur more than once: identical rows, and rows that nearly agree."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.rows import Rows
from fedimb.errors import DataError

NEAR_RMS = 8 / 255
"""Two pictures nearly agree up to this root mean square of their differences, as a fraction of the values' range."""
NEAR_SHARE = 1e-3
"""Two rows of a table nearly agree if each number differs by at most this share."""

_BLOCKS = 8  # pictures are compared by the means of 8 x 8 blocks first
_MOST_PAIRS = 50  # near rows per row: beyond it "nearly equal" tells nothing apart
_CHUNK_BYTES = 1 << 24  # of x held in memory at a time
_KEY_BYTES = 128  # of the middle of a row: a picture's edges are often alike


def exact_groups(x: NDArray[Any]) -> Rows:
    """[n] int64, for each row of ``x`` the first row that is identical to it: rows with the same number are equal.

    Rows that hash alike are compared byte for byte. NaN equals NaN and -0.0 equals 0.0.

    Args:
        x: [n, ...] numbers of any dtype and row shape; a memory map is read a few megabytes at a time.

    Example:
        >>> exact_groups(np.array([[1.0, 2.0], [3.0, np.nan], [1.0, 2.0], [3.0, np.nan]]))
        array([0, 1, 0, 1])
    """
    n = len(x)
    if n == 0 or x[0].size == 0:
        return np.zeros(n, np.int64)
    group = np.arange(n)
    pending = _maybe_repeated(x)
    hashes = np.empty(n, np.int64)
    for part in _chunks(x, pending):
        hashes[part] = _hashes(_comparable(x[part]))
    while len(pending):  # once more only if two different rows have the same hash
        _, first, of_row = np.unique(hashes[pending], return_index=True, return_inverse=True)
        leader = pending[first][of_row]
        later = np.flatnonzero(leader != pending)
        same = np.zeros(len(later), dtype=np.bool_)
        for part in _chunks(x, np.arange(len(later))):
            rows = later[part]
            same[part] = (_comparable(x[pending[rows]]) == _comparable(x[leader[rows]])).all(axis=1)
        group[pending[later[same]]] = leader[later[same]]
        pending = pending[later[~same]]
    return group


def _maybe_repeated(x: NDArray[Any]) -> Rows:
    """The rows of ``x`` that agree with another one in the middle, so that most pictures need not be hashed whole."""
    n, size = len(x), x[0].size
    kept = max(1, _KEY_BYTES // x.dtype.itemsize)
    if size <= 2 * kept:
        return np.arange(n)
    first = (size - kept) // 2
    keys = np.empty(n, np.int64)
    for part in _chunks(x, np.arange(n)):
        rows = x[part[0] : part[-1] + 1].reshape(len(part), -1)
        keys[part] = _hashes(_comparable(rows[:, first : first + kept]))
    order = np.argsort(keys)
    equal = keys[order[1:]] == keys[order[:-1]]
    found: Rows = np.sort(order[np.r_[equal, False] | np.r_[False, equal]])
    return found


def _hashes(values: NDArray[np.uint8]) -> list[int]:
    """A hash of each row of bytes."""
    return [hash(row) for row in values.view(f"V{values.shape[1]}").ravel().tolist()]


def _chunks(x: NDArray[Any], rows: Rows) -> Iterator[Rows]:
    """Consecutive parts of ``rows`` whose values take about `_CHUNK_BYTES`."""
    step = max(1, _CHUNK_BYTES // max(1, x[0].nbytes))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _comparable(rows: NDArray[Any]) -> NDArray[np.uint8]:
    """[m, bytes of a row] uint8, equal for equal rows: one NaN, one zero."""
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    if flat.dtype.kind == "f":
        flat = flat + 0.0  # a copy; -0.0 becomes 0.0
        flat[np.isnan(flat)] = np.nan
    return flat.view(np.uint8)


def near_groups(x: NDArray[Any], scale: float = 1.0, scaled: NDArray[np.bool_] | None = None) -> Rows:
    """[n] int64, for each row of ``x`` the first row of its group: rows that nearly agree, directly or through others.

    Pictures and signals, x [n, c, ...]: the root mean square of their differences is at most `NEAR_RMS` of the range of
    values (8 grey levels of 255). Turned, mirrored, cropped or shifted copies are not found.

    Tables, x [n, F]: each number differs by at most `NEAR_SHARE` of its size, or of the column's typical size (median
    of the magnitudes above 0) if that is larger; columns of 0 and 1 and missing values agree exactly.

    Args:
        scale: of `SourceData`; uint8 values range from 0 to 1 / scale, float32 ones from the smallest to the largest.
        scaled: of `SourceData`: the columns that are numbers. None: all.

    Raises:
        DataError: rows have more than 50 near ones on average, so near copies cannot be told from other rows.
    """
    group = exact_groups(x)
    kept = np.flatnonzero(group == np.arange(len(group)))
    if len(kept) < 2 or x[0].size == 0:
        return group
    pairs = _near_rows(x, kept, scaled) if x.ndim == 2 else _near_pictures(x, kept, scale)
    if not len(pairs):
        return group
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(len(kept),) * 2)
    _, component = connected_components(edges, directed=False)
    first = np.full(int(component.max()) + 1, len(x))
    np.minimum.at(first, component, kept)
    leader = np.arange(len(x))
    leader[kept] = first[component]
    return leader[group]


def _near_pictures(x: NDArray[Any], kept: Rows, scale: float) -> Rows:
    """[p, 2] positions in ``kept`` of pictures that nearly agree.

    The mean of a block cannot differ by more than its pixels do, so the small pictures of block means miss no pair.
    """
    span = 1 / scale if x.dtype == np.uint8 else _span(x, kept)
    most = NEAR_RMS * span
    small = np.concatenate([_block_means(np.asarray(x[kept[part]])) for part in _chunks(x, np.arange(len(kept)))])
    small -= small.mean(axis=0)  # distances are then exact enough whatever the values' offset
    pairs = _pairs_within(small, most * (1 + 1e-6) + 1e-9, "euclidean")
    near = np.zeros(len(pairs), np.bool_)
    for part in _chunks(x, np.arange(len(pairs))):
        one, other = (np.asarray(x[kept[pairs[part, side]]], np.float32) for side in (0, 1))
        apart = ((one - other) ** 2).reshape(len(part), -1).mean(axis=1, dtype=np.float64)
        near[part] = apart <= most**2
    return pairs[near]


def _span(x: NDArray[Any], kept: Rows) -> float:
    low, high = np.inf, -np.inf
    for part in _chunks(x, kept):
        values = x[part]
        low, high = min(low, float(np.nanmin(values))), max(high, float(np.nanmax(values)))
    return high - low


def _block_means(pictures: NDArray[Any]) -> NDArray[np.float64]:
    """[m, d] weighted means of blocks, so that Euclidean distances are at most the pictures' RMS differences."""
    means = pictures.astype(np.float64)
    weight = np.ones((1,) * means.ndim)
    for axis in range(2, means.ndim):
        length = means.shape[axis]
        starts = np.unique(np.linspace(0, length, min(length, _BLOCKS), endpoint=False).astype(int))
        sizes = np.diff([*starts, length]).reshape([-1 if a == axis else 1 for a in range(means.ndim)])
        means = np.add.reduceat(means, starts, axis=axis) / sizes
        weight = weight * (sizes / length)
    return (means * np.sqrt(weight / means.shape[1])).reshape(len(means), -1)


def _near_rows(x: NDArray[Any], kept: Rows, scaled: NDArray[np.bool_] | None) -> Rows:
    """[p, 2] positions in ``kept`` of table rows that nearly agree."""
    values = np.array(x[kept], np.float64)
    exact = np.zeros(values.shape[1], np.bool_) if scaled is None else ~scaled
    exact |= np.isin(values, (0.0, 1.0)).all(axis=0)
    missing = np.isnan(values)
    typical = np.ones(values.shape[1])
    for f in np.flatnonzero(~exact):
        sizes = np.abs(values[~missing[:, f], f])
        typical[f] = np.median(sizes[sizes > 0]) if (sizes > 0).any() else 1.0
    # asinh: equal steps of it are equal steps near 0 and equal shares of large values.
    near = np.where(missing, 0.0, np.arcsinh(values / typical))
    near[:, exact] = values[:, exact]
    strata = np.concatenate([near[:, exact], missing], axis=1)
    _, stratum = np.unique(strata, axis=0, return_inverse=True)
    found = [np.empty((0, 2), np.int64)]
    order = np.argsort(stratum, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(stratum))[:-1]):
        if len(rows) > 1:
            found.append(rows[_pairs_within(near[np.ix_(rows, ~exact)], NEAR_SHARE, "chebyshev")])
    return np.concatenate(found)


def _pairs_within(points: NDArray[np.float64], distance: float, metric: str) -> Rows:
    """[p, 2] int64 pairs of points [m, d] at most ``distance`` apart, the lower first."""
    from sklearn.neighbors import NearestNeighbors

    if points.shape[1] == 0 or len(points) < 2:
        return np.empty((0, 2), np.int64)
    how = "brute" if metric == "euclidean" else "kd_tree"
    search = NearestNeighbors(radius=distance, metric=metric, algorithm=how).fit(points)
    found, count = [np.empty((0, 2), np.int64)], 0
    for start in range(0, len(points), 1024):
        graph = search.radius_neighbors_graph(points[start : start + 1024], mode="connectivity").tocoo()
        pairs = np.stack([graph.row + start, graph.col], axis=1).astype(np.int64)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        found.append(pairs)
        count += len(pairs)
        if count > _MOST_PAIRS * len(points):
            raise DataError(
                f"near-duplicates tell nothing apart here: among {start + 1024:,} of {len(points):,} rows "
                f"{count:,} pairs nearly agree; use data.split.group=duplicates"
            )
    return np.concatenate(found)
