"""IMOVNO's cleaning: rows among other classes are left out, then rows of the largest class that crowd the rest.

After IMOVNO+ (arXiv 2602.20199), whose text says: regions by the probability of a row's class, noise left out, then the
majority's overlap cut by z-scores of distances at their big jump. Our reading, with neighbours: the probability is the
share of a row's k nearest other rows that are of its class; noise has at most ``noise``, the core at least ``core``,
between them is overlap. Of the largest class's overlap, sorted by distance to the nearest row of another class, those
below the largest gap between consecutive z-scores are left out. Its oversampling and ensemble are not done here: use
`smote` or another rule for the first.
"""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount, Range
from fedimb.training.resamplers.base import Categories, Inputs, Labels, Resampler, cleaned_classes, in_range

_EVEN = 1e-9
"""Range of distances, over the largest, up to which none is told from another."""


@register("resampler", "imovno", resamples=True)
class ImovnoCleaning(Resampler):
    """Leaves out noise, and the largest class's rows that are nearest to the others.

    Args:
        k: neighbours by which a row's own class is judged, at least 1; fewer if the client has fewer rows.
        noise: largest share of neighbours of its own class at which a row is noise, from 0 and below ``core``.
        core: smallest share at which it is beyond doubt, up to 1.
        least: rows of each class that stay, at least 1; those with the most neighbours of their class.
        keep_minority: only rows of the client's largest class may be noise; false: rows of every class.
        categories: see `Resampler`.

    Raises:
        ConfigError: an argument outside its range.
    """

    def __init__(
        self,
        k: PositiveCount = 10,
        noise: Annotated[float, Range(0, 1)] = 0.3,
        core: Annotated[float, Range(0, 1)] = 0.7,
        least: PositiveCount = 5,
        keep_minority: bool = True,
        categories: Categories | None = None,
    ) -> None:
        self.k, self.least = int(in_range("imovno", "k", k, 1)), int(in_range("imovno", "least", least, 1))
        self.noise = in_range("imovno", "noise", noise, 0, 1)
        self.core = in_range("imovno", "core", core, 0, 1)
        if self.noise >= self.core:
            raise ConfigError(f"resampler 'imovno': noise={noise:g} must be below core={core:g}")
        self.keep_minority = keep_minority

    def resample(self, x: Inputs, y: Labels, seed: int) -> tuple[Inputs, Labels]:
        """See `Resampler.resample`; nothing is drawn, and rows keep their order."""
        if len(np.unique(y)) < 2:
            return x, y
        share = own_share(x, y, self.k)
        stays = np.ones(len(y), dtype=bool)
        for label in cleaned_classes(y, self.keep_minority):
            own = np.flatnonzero(y == label)
            by_doubt = own[np.argsort(share[own], kind="stable")]
            noise = by_doubt[share[by_doubt] <= self.noise]
            stays[noise[: max(0, len(own) - self.least)]] = False
        largest = cleaned_classes(y, True)[0]
        overlap = np.flatnonzero((y == largest) & stays & (share < self.core) & (share > self.noise))
        others = np.flatnonzero((y != largest) & stays)
        if len(others):
            near = overlap[crowding(nearest_distance(x[overlap], x[others]))] if len(overlap) else overlap
            held = int((stays & (y == largest)).sum())
            stays[near[: max(0, held - self.least)]] = False
        return x[stays], y[stays]


def own_share(x: Inputs, y: Labels, k: int) -> NDArray[np.float64]:
    """Share [n] of each row's k nearest other rows that are of its class; k is at most n - 1. At least 2 rows."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=min(k, len(y) - 1)).fit(x).kneighbors(return_distance=False)
    share: NDArray[np.float64] = (y[near] == y[:, None]).mean(axis=1)
    return share


def nearest_distance(x: Inputs, others: Inputs) -> NDArray[np.float64]:
    """Euclidean distance [n] of each row to the nearest of the others."""
    from sklearn.neighbors import NearestNeighbors

    distance: NDArray[np.float64] = NearestNeighbors(n_neighbors=1).fit(others).kneighbors(x)[0][:, 0]
    return distance


def crowding(distance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions, nearest first, of the distances below the largest gap between consecutive ones.

    The gap of the z-scores is the gap of the distances: all are shifted and scaled alike. None if there are fewer than
    three, or they do not differ. Of gaps of one size the first counts.

    Example:
        >>> crowding(np.array([5.0, 0.1, 5.2, 0.3])).tolist()
        [1, 3]
    """
    if len(distance) < 3 or np.ptp(distance) <= _EVEN * distance.max():
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(distance, kind="stable").astype(np.int64)
    return order[: int(np.diff(distance[order]).argmax()) + 1]
