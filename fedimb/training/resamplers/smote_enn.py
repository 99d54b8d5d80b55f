"""SMOTE, then edited nearest neighbours over what came of it.

Batista, Prati and Monard, "A Study of the Behavior of Several Methods for Balancing Machine Learning Training Data",
SIGKDD Explorations 2004.
"""

import numpy as np

from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount
from fedimb.training.resamplers.base import Categories, Inputs, Labels, Ratio, Resampler, cleaned_classes
from fedimb.training.resamplers.enn import EditedNeighbours, edited
from fedimb.training.resamplers.smote import Smote


@register("resampler", "smote_enn", resamples=True, never_leaves=True)
class SmoteEdited(Resampler):
    """`Smote`, then rows are left out that `EditedNeighbours` would leave out.

    Args:
        k: neighbours of SMOTE, at least 1.
        ratio: rows of each class over those of the client's largest after SMOTE, above 0 and at most 1.
        clean_k: neighbours of the cleaning, at least 1.
        keep_minority: real rows of all classes but the client's largest stay; made ones may go. False: any row may.
        categories: see `Resampler`.

    Raises:
        ConfigError: an argument outside its range, a table with categories, or imbalanced-learn is missing.
    """

    def __init__(
        self,
        k: PositiveCount = 5,
        ratio: Ratio = 1.0,
        clean_k: PositiveCount = 3,
        keep_minority: bool = True,
        categories: Categories | None = None,
    ) -> None:
        self._grow, self._clean = Smote(k, ratio, categories), EditedNeighbours(clean_k, keep_minority)

    def resample(self, x: Inputs, y: Labels, seed: int) -> tuple[Inputs, Labels]:
        """See `Resampler.resample`; real rows that stay come first, in their order."""
        grown_x, grown_y = self._grow.resample(x, y, seed)
        kept = edited(grown_x, grown_y, self._clean.k, np.unique(y).tolist())
        if self._clean.keep_minority:
            largest = cleaned_classes(y, keep_minority=True)
            kept = np.union1d(kept, np.flatnonzero(~np.isin(y, largest)))
        return grown_x[kept], grown_y[kept]
