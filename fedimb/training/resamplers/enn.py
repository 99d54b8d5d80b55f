"""Edited nearest neighbours: rows whose neighbours do not share their class are left out.

Wilson, "Asymptotic Properties of Nearest Neighbor Rules Using Edited Data", IEEE SMC 1972: a row stays if all its k
nearest rows are of its class.
"""

import numpy as np

from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount
from fedimb.training.resamplers.base import (
    Categories,
    Inputs,
    Labels,
    Resampler,
    cleaned_classes,
    in_range,
    need_imblearn,
)


@register("resampler", "enn", resamples=True)
class EditedNeighbours(Resampler):
    """Leaves out rows one of whose nearest rows is of another class.

    Args:
        k: neighbours, at least 1; fewer if the client has fewer rows.
        keep_minority: only rows of the client's largest class may be left out; false: rows of every class, which can
            leave a rare class without any.
        categories: see `Resampler`.

    Raises:
        ConfigError: k below 1, or imbalanced-learn is missing.
    """

    def __init__(self, k: PositiveCount = 3, keep_minority: bool = True, categories: Categories | None = None) -> None:
        self.k, self.keep_minority = int(in_range("enn", "k", k, 1)), keep_minority
        need_imblearn("enn")

    def resample(self, x: Inputs, y: Labels, seed: int) -> tuple[Inputs, Labels]:
        """See `Resampler.resample`; nothing is drawn, and rows keep their order."""
        kept = edited(x, y, self.k, cleaned_classes(y, self.keep_minority))
        return x[kept], y[kept]


def edited(x: Inputs, y: Labels, k: int, classes: list[int]) -> np.ndarray:
    """Positions, ascending, of the rows that stay if rows of ``classes`` may be left out."""
    from imblearn.under_sampling import EditedNearestNeighbours

    if len(np.unique(y)) < 2:
        return np.arange(len(y))
    rule = EditedNearestNeighbours(sampling_strategy=classes, n_neighbors=min(k, len(y) - 1), kind_sel="all")
    rule.fit_resample(x, y)
    return np.sort(rule.sample_indices_)
