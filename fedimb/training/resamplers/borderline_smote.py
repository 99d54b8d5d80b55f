"""Borderline SMOTE: rare classes grow only around rows most of whose neighbours are of other classes.

Han, Wang and Mao, "Borderline-SMOTE", ICIC 2005, variant 1: a row is in danger if at least half, but not all, of its m
nearest rows of any class are of others; points are drawn between rows in danger and their k nearest rows of the class.
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


@register("resampler", "borderline_smote", resamples=True, never_leaves=True)
class BorderlineSmote(Resampler):
    """SMOTE around the rows in danger; a class without such rows does not grow.

    Args:
        k: neighbours of the same class, at least 1; a class with fewer rows has as many as it can.
        m: neighbours of any class that say whether a row is in danger, at least 1.
        ratio: rows of each class over those of the client's largest, above 0 and at most 1.
        categories: see `Resampler`.

    Raises:
        ConfigError: an argument outside its range, a table with categories, or imbalanced-learn is missing.
    """

    def __init__(
        self, k: PositiveCount = 5, m: PositiveCount = 10, ratio: Ratio = 1.0, categories: Categories | None = None
    ) -> None:
        self.k = int(in_range("borderline_smote", "k", k, 1))
        self.m = int(in_range("borderline_smote", "m", m, 1))
        self.ratio = check_ratio("borderline_smote", ratio)
        refuse_categories("borderline_smote", categories)
        need_imblearn("borderline_smote")

    def resample(self, x: Inputs, y: Labels, seed: int) -> tuple[Inputs, Labels]:
        """See `Resampler.resample`; the client's rows come first, unchanged."""
        from imblearn.over_sampling import BorderlineSMOTE

        random = np.random.RandomState(seed)

        def made(label: int, wanted: int, held: int) -> Inputs:
            rule = BorderlineSMOTE(
                sampling_strategy={label: wanted},
                k_neighbors=min(self.k, held - 1),
                m_neighbors=min(self.m, len(x) - 1),
                random_state=random,
            )
            rows: Inputs = rule.fit_resample(x, y)[0][len(x) :]
            return rows

        return grown(x, y, self.ratio, made)
