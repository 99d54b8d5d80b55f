"""Images compared with shifted, turned, mirrored, zoomed and inverted copies of the real ones.

A copy that was moved is far from its record pixel by pixel. So the distance of a sample to a record is the smallest one
to any of the record's views, and it ignores brightness, contrast, sign and colour: 2 - 2 |correlation|, of grey images
of at most 16 x 16. Training and holdout records are viewed alike, so the tests stay exact under their null hypothesis.

Views are single moves, not their compositions: a copy that was turned and then shifted is not seen as one, unless it
still resembles a single move. What is detected is measured in experiments/fedssg (gate_moves.csv).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from fedimb.privacy.audit.copies import Neighbours, closeness
from fedimb.privacy.audit.types import Batch, Floats, Ids

Matrix = NDArray[np.float32]

MOST_RECORDS = 500
"""Training records of a class, and as many holdout records, that are viewed; of more, a random choice."""
_FINE, _COARSE = 32, 16  # sides at which images are moved, and compared
_SHIFT, _TURN, _ZOOMS = 3, 6, (0.7, 0.8, 0.9, 1.1, 1.25, 1.4)
_BLOCK, _IMAGES = 4_000_000, 64


class MovedSpace:
    """The space of views; see the module.

    Attributes:
        name: prefix of its figures.

    Args:
        train, holdout: all real records [n, *shape], images.
        units: patient ids of train and of holdout.
        rng: chooses records where a class has more than 500 on a side.
    """

    name = "moved"

    def __init__(self, train: Batch, holdout: Batch, units: tuple[Ids, Ids], rng: np.random.Generator) -> None:
        self._sides, self._units, self._rng = (train, holdout), units, rng
        self._views = views_of(train.x.shape[-2:])
        self._class: tuple[bytes, _Class] | None = None

    def measure(
        self, samples: NDArray[np.generic], train: Ids, holdout: Ids, rng: np.random.Generator
    ) -> tuple[Neighbours, Floats, Floats]:
        """(neighbours, closeness of the samples [m], closeness of the real records) within one class."""
        own = self._of(train, holdout)
        distance = _distances(self._views.plain(samples), own.views)
        neighbours = Neighbours.of_distances(distance, own.train, len(own.units) - own.train, rng)
        return neighbours, own.closeness(distance), own.controls

    def planted(
        self, train: Ids, holdout: Ids, count: int, near: float, rng: np.random.Generator
    ) -> tuple[Neighbours, Floats, Floats]:
        """As `measure`, of ``count`` copies of training records, each moved at random and with a little noise."""
        own = self._of(train, holdout)
        rows, moves = rng.integers(own.train, size=count), rng.integers(own.views.shape[1], size=count)
        points = own.views[rows, moves]
        noise = rng.normal(size=points.shape)
        apart = float(np.median(_distances(own.views[own.train :, 0], own.views[: own.train]).min(1)))
        noise *= near * apart / np.linalg.norm(noise, axis=1, keepdims=True)
        distance = _distances(_unit((points + noise).astype(np.float32)), own.views)
        neighbours = Neighbours.of_distances(distance, own.train, len(own.units) - own.train, rng)
        return neighbours, own.closeness(distance), own.controls

    def _of(self, train: Ids, holdout: Ids) -> "_Class":
        key = train.tobytes() + holdout.tobytes()
        if self._class is None or self._class[0] != key:
            chosen = [
                rows if len(rows) <= MOST_RECORDS else np.sort(self._rng.permutation(rows)[:MOST_RECORDS])
                for rows in (train, holdout)
            ]
            images = np.concatenate([side.x[rows] for side, rows in zip(self._sides, chosen, strict=True)])
            units = np.concatenate([ids[rows] for ids, rows in zip(self._units, chosen, strict=True)])
            self._class = key, _Class(self._views(images), units, len(chosen[0]))
        return self._class[1]


@dataclass
class _Class:
    """One class's real records.

    Attributes:
        views: float32 [n, T, F] of unit length, training records first; the first view is the record itself.
        units: [n] patients.
        train: number of training records.
    """

    views: Matrix
    units: Ids
    train: int
    controls: Floats = field(init=False)

    def __post_init__(self) -> None:
        distance = _distances(self.views[:, 0], self.views)
        distance[self.units[:, None] == self.units] = np.inf
        self.controls = self.closeness(distance)

    def closeness(self, distance: Floats) -> Floats:
        """[m]: see `copies.closeness`."""
        return closeness(distance[:, : self.train].min(1), distance[:, self.train :].min(1))


def _distances(points: Matrix, views: Matrix) -> Floats:
    """[m, n]: distance of each point [m, F] to the nearest of each record's views [n, T, F]; unit length or zero."""
    found = np.empty((len(points), len(views)))
    size = max(1, _BLOCK // max(1, len(points) * views.shape[1]))
    for start in range(0, len(views), size):
        part = views[start : start + size]
        likeness = np.abs(points @ part.reshape(-1, part.shape[2]).T)
        found[:, start : start + size] = likeness.reshape(len(points), len(part), -1).max(2)
    return np.sqrt(np.maximum(2 - 2 * found, 0.0))


def _unit(rows: Matrix) -> Matrix:
    """Rows [..., F] minus their mean, of unit length; a constant row is zero."""
    rows = rows - rows.mean(-1, keepdims=True)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-6)


@dataclass(frozen=True, eq=False)
class Views:
    """All views of images of one size, as one linear map.

    Attributes:
        shrink: sparse [p, height x width]: to at most 32 x 32.
        matrix: sparse [T x F, p]: every move, then to at most 16 x 16.
        count: T.
    """

    shrink: csr_matrix
    matrix: csr_matrix
    count: int

    def __call__(self, images: NDArray[np.generic]) -> Matrix:
        """Images [n, height, width] or [n, channels, height, width] -> [n, T, F] of unit length."""
        seen = np.empty((len(images), self.count, self.matrix.shape[0] // self.count), np.float32)
        for start in range(0, len(images), _IMAGES):
            part = images[start : start + _IMAGES]
            moved = np.ascontiguousarray((self.matrix @ self._small(part)).T, dtype=np.float32)
            seen[start : start + _IMAGES] = _unit(moved.reshape(len(part), self.count, -1))
        return seen

    def plain(self, images: NDArray[np.generic]) -> Matrix:
        """The images themselves, not moved: [n, F]."""
        size = self.matrix.shape[0] // self.count
        return _unit(np.ascontiguousarray((self.matrix[:size] @ self._small(images)).T, dtype=np.float32))

    def _small(self, images: NDArray[np.generic]) -> NDArray[np.float64]:
        grey = images.astype(np.float64).reshape(len(images), -1, *images.shape[-2:]).mean(1)
        return np.asarray(self.shrink @ grey.reshape(len(images), -1).T)


@lru_cache(maxsize=8)
def views_of(shape: tuple[int, int]) -> Views:
    """The views of images of (height, width): shifts by up to 3 pixels, turns of 6 degrees, mirror images, zooms."""
    height, width = (min(side, _FINE) for side in shape)
    coarse = tuple(-(-side // -(-side // _COARSE)) for side in (height, width))
    shrink, reduce = _pooling(shape, (height, width)), _pooling((height, width), (coarse[0], coarse[1]))
    moves = [reduce @ move for move in _moves(height, width)]
    return Views(shrink, csr_matrix(vstack(moves)), len(moves))


def _moves(height: int, width: int) -> Iterator[csr_matrix]:
    """Sparse maps of images to moved images; the first is the identity."""
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    yield _sampling(rows, columns)
    reach = range(-_SHIFT, _SHIFT + 1)
    for down in reach:
        for right in reach:
            if down or right:
                yield _sampling((rows - down) % height, (columns - right) % width)
    middle = (height - 1) / 2, (width - 1) / 2
    y, x = rows - middle[0], columns - middle[1]
    for mirrored in (False, True):
        for angle in np.deg2rad(np.arange(0, 360, _TURN)):
            if angle or mirrored:
                side = -x if mirrored else x
                turned = np.cos(angle) * y - np.sin(angle) * side, np.sin(angle) * y + np.cos(angle) * side
                yield _sampling(turned[0] + middle[0], turned[1] + middle[1])
    for zoom in _ZOOMS:
        yield _sampling(y / zoom + middle[0], x / zoom + middle[1])


def _sampling(rows: Floats, columns: Floats) -> csr_matrix:
    """Bilinear sampling of an image at these places [height, width], outside of it at its edge."""
    height, width = rows.shape
    places = np.arange(rows.size)
    found = csr_matrix((rows.size, rows.size))
    y, x = np.clip(rows, 0, height - 1).ravel(), np.clip(columns, 0, width - 1).ravel()
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - (y - top)) * np.abs(1 - right - (x - left))
            own = np.minimum(top + down, height - 1) * width + np.minimum(left + right, width - 1)
            found = found + csr_matrix((weight, (places, own)), shape=found.shape)
    return csr_matrix(found)


def _pooling(shape: tuple[int, ...], to: tuple[int, int]) -> csr_matrix:
    """Means over windows: images of (height, width) to smaller ones, as a sparse map."""
    from scipy.sparse import kron

    return csr_matrix(kron(_means(shape[0], to[0]), _means(shape[1], to[1])))


def _means(size: int, to: int) -> csr_matrix:
    """[to, size]: means over windows that cover all places as evenly as possible."""
    found = np.zeros((to, size))
    for k in range(to):
        found[k, k * size // to : -(-(k + 1) * size // to)] = 1
    return csr_matrix(found / found.sum(1, keepdims=True))
