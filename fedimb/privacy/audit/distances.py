"""Distances between records (in blocks), their scale, and the rounding of values."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.privacy.audit.types import Floats, Ids

_BLOCK = 4_000_000  # cells of a distance block: 32 MB
_FINEST, _LEVELS, _FEW = 1e-9, 4096, 8


@dataclass(frozen=True)
class Scale:
    """Standardisation by the real records' mean and standard deviation, [F] each."""

    mean: Floats
    std: Floats

    @staticmethod
    def of(real: NDArray[Any]) -> "Scale":
        """Fit to records [n, *shape].

        A column is divided by at least a tenth of the median standard deviation of the columns that vary: a pixel lit
            in
        one record of a thousand must not decide which records are neighbours. A constant column is not scaled.
        """
        rows = flatten(real)
        std = rows.std(0)
        varies = std > 0
        floor = 0.1 * float(np.median(std[varies])) if varies.any() else 1.0
        return Scale(rows.mean(0), np.where(varies, np.maximum(std, floor), 1.0))

    def __call__(self, x: NDArray[np.generic]) -> Floats:
        """Records [n, *shape] -> [n, F] float64."""
        scaled: Floats = (flatten(x) - self.mean) / self.std
        return scaled


def flatten(x: NDArray[np.generic]) -> Floats:
    """[n, *shape] -> [n, F] float64; also for n = 0."""
    return np.asarray(x, np.float64).reshape(len(x), int(np.prod(x.shape[1:])))


def squared_distances(points: Floats, records: Floats) -> Floats:
    """Squared Euclidean distances [n, m], at least 0."""
    found = (points * points).sum(1)[:, None] + (records * records).sum(1) - 2 * points @ records.T
    return np.maximum(found, 0.0, out=found)


def nearest_records(points: Floats, records: Floats, units: tuple[Ids, Ids] | None = None) -> tuple[Floats, Ids]:
    """(distance [n], position [n]) of the record nearest to each point.

    Args:
        units: patients of the points [n] and of the records [m]; records of a point's own patient are skipped.

    Returns:
        Infinity and -1 if no record is left.
    """
    found, where = np.full(len(points), np.inf), np.full(len(points), -1, np.int64)
    if len(records) == 0:
        return found, where
    size = max(1, _BLOCK // len(records))
    for start in range(0, len(points), size):
        part = slice(start, start + size)
        block = squared_distances(points[part], records)
        if units is not None:
            block[units[0][part][:, None] == units[1]] = np.inf
        own = block.argmin(1)
        found[part], where[part] = np.sqrt(block[np.arange(len(block)), own]), own
    where[np.isinf(found)] = -1
    return found, where


def rounding_tolerance(samples: NDArray[np.generic], real: NDArray[np.generic]) -> Floats:
    """[F]: how far rounding alone may change a sample's value.

    Half a step if the values lie on a grid (pictures of 256 levels, years of age), otherwise a few units in the last
    place of float32. All pixels of pictures are judged together, the columns of a table separately.

    Args:
        samples: [m, *shape], the rounded values.
        real: [n, *shape], to tell a grid from chance if there are few samples.
    """
    tables = samples.ndim == 2
    own, other = flatten(samples), flatten(real)
    if not tables:
        own, other = own.reshape(-1, 1), other.reshape(-1, 1)
    largest = np.abs(np.concatenate([own, other])).max(0, initial=0.0)
    tolerance = np.where(largest > 0, 4 * float(np.finfo(np.float32).eps) * largest, 1.0)
    steps = np.array([_step(own[:, j], other[:, j]) for j in range(own.shape[1])])
    tolerance = np.maximum(tolerance, steps / 2)
    return tolerance if tables else np.full(flatten(samples).shape[1], tolerance[0])


def _step(values: Floats, other: Floats) -> float:
    """Step of the grid on which all values lie; 0 if there is none."""
    levels = np.unique(values)
    if len(levels) < _FEW:
        levels = np.unique(np.concatenate([values, other]))
    if not 2 <= len(levels) <= _LEVELS:
        return 0.0
    reach = float(levels[-1] - levels[0])
    step = float(np.diff(levels).min())
    if step < _FINEST * reach:
        return 0.0
    step = reach / round(reach / step)
    places = (levels - levels[0]) / step
    return step if float(np.abs(places - np.rint(places)).max()) < 0.01 else 0.0
