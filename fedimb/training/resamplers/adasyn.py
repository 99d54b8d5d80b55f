"""ADASYN: rare classes grow most around the rows with most neighbours of other classes.

He et al., "ADASYN: Adaptive Synthetic Sampling Approach for Imbalanced Learning", IJCNN 2008: a row gets new points in
proportion to the share of other classes among its k nearest rows.
"""

import numpy as np

from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount
from fedimb.training.resamplers.base import (
    Categories,
    Inputs,
    Labels,
    Ratio,
    Resampler,
    check_ratio,
    grown,
    in_range,
    need_imblearn,
    refuse_categories,
)


@register("resampler", "adasyn", resamples=True, never_leaves=True)
class Adasyn(Resampler):
    """SMOTE in proportion to the neighbours of other classes; a class without such neighbours does not grow.

    Args:
        k: neighbours, at least 1; a class with fewer rows has as many as it can.
        ratio: rows of each class over those of the client's largest, nearly (a row's number is rounded), above 0 and at
            most 1.
        categories: see `Resampler`.

    Raises:
        ConfigError: an argument outside its range, a table with categories, or imbalanced-learn is missing.
    """

    def __init__(self, k: PositiveCount = 5, ratio: Ratio = 1.0, categories: Categories | None = None) -> None:
        self.k = int(in_range("adasyn", "k", k, 1))
        self.ratio = check_ratio("adasyn", ratio)
        refuse_categories("adasyn", categories)
        need_imblearn("adasyn")

    def resample(self, x: Inputs, y: Labels, seed: int) -> tuple[Inputs, Labels]:
        """See `Resampler.resample`; the client's rows come first, unchanged."""
        from imblearn.over_sampling import ADASYN
        from sklearn.neighbors import NearestNeighbors

        random = np.random.RandomState(seed)

        def made(label: int, wanted: int, held: int) -> Inputs:
            k = min(self.k, held - 1)
            near = NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x[y == label], return_distance=False)
            if (y[near[:, 1:]] == label).all():
                return x[:0]  # the rule divides by their number
            rule = ADASYN(sampling_strategy={label: wanted}, n_neighbors=k, random_state=random)
            rows: Inputs = rule.fit_resample(x, y)[0][len(x) :]
            return rows

        return grown(x, y, self.ratio, made)
