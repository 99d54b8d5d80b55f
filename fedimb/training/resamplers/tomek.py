"""Tomek links: of two rows of different classes that are each other's nearest, that of the larger class is left out.

Tomek, "Two Modifications of CNN", IEEE SMC 1976.
"""

import numpy as np

from fedimb.registry import register
from fedimb.training.resamplers.base import Categories, Inputs, Labels, Resampler, cleaned_classes, need_imblearn


@register("resampler", "tomek", resamples=True)
class TomekLinks(Resampler):
    """Leaves out rows whose nearest row is of another class and has them as its nearest.

    Args:
        keep_minority: only rows of the client's largest class are left out; false: both rows of every link.
        categories: see `Resampler`.

    Raises:
        ConfigError: imbalanced-learn is missing.
    """

    def __init__(self, keep_minority: bool = True, categories: Categories | None = None) -> None:
        self.keep_minority = keep_minority
        need_imblearn("tomek")

    def resample(self, x: Inputs, y: Labels, seed: int) -> tuple[Inputs, Labels]:
        """See `Resampler.resample`; nothing is drawn, and rows keep their order."""
        from imblearn.under_sampling import TomekLinks as Rule

        if len(np.unique(y)) < 2:
            return x, y
        rule = Rule(sampling_strategy=cleaned_classes(y, self.keep_minority))
        rule.fit_resample(x, y)
        kept = np.sort(rule.sample_indices_)
        return x[kept], y[kept]
