"""SMOTE: rare classes grow by points between a row and one of its nearest rows of the same class.

Chawla et al., "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 2002: x + u (x' - x), u uniform in [0, 1] and
x' one of the k nearest rows of x's class.
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


@register("resampler", "smote", resamples=True, never_leaves=True)
class Smote(Resampler):
    """Points between rows of a class, until it has ``ratio`` times the rows of the client's largest class.

    Args:
        k: neighbours, at least 1; a class with fewer rows has as many as it can. A single row has none and stays.
        ratio: above 0 and at most 1.
        categories: see `Resampler`.

    Raises:
        ConfigError: an argument outside its range, a table with categories, or imbalanced-learn is missing.
    """

    def __init__(self, k: PositiveCount = 5, ratio: Ratio = 1.0, categories: Categories | None = None) -> None:
        self.k = int(in_range("smote", "k", k, 1))
        self.ratio = check_ratio("smote", ratio)
        refuse_categories("smote", categories)
        need_imblearn("smote")

    def resample(self, x: Inputs, y: Labels, seed: int) -> tuple[Inputs, Labels]:
        """See `Resampler.resample`; the client's rows come first, unchanged."""
        from imblearn.over_sampling import SMOTE

        random = np.random.RandomState(seed)

        def made(label: int, wanted: int, held: int) -> Inputs:
            rule = SMOTE(sampling_strategy={label: wanted}, k_neighbors=min(self.k, held - 1), random_state=random)
            rows: Inputs = rule.fit_resample(x, y)[0][len(x) :]
            return rows

        return grown(x, y, self.ratio, made)
