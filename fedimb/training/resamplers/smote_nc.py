"""SMOTE-NC: SMOTE of tables with categories, which are taken over from rows and never drawn between.

Chawla et al., JAIR 2002, section 6.1: numbers are drawn between a row and a neighbour of its class, where a differing
category counts as the median of the standard deviations of the class's numbers; the new row has, of each column, the
most frequent category among the neighbours. A missing value is a category here.
"""

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError
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
)


@register("resampler", "smote_nc", resamples=True, never_leaves=True, needs_categories=True)
class SmoteNominalContinuous(Resampler):
    """SMOTE that draws numbers and votes on categories; no row gets a category that no row of its class here has.

    Args:
        k: neighbours, at least 1; a class with fewer rows has as many as it can. A single row has none and stays.
        ratio: rows of each class over those of the client's largest, above 0 and at most 1.
        categories: see `Resampler`.

    Raises:
        ConfigError: an argument outside its range, data without categories, or imbalanced-learn is missing.
    """

    def __init__(self, k: PositiveCount = 5, ratio: Ratio = 1.0, categories: Categories | None = None) -> None:
        self.k = int(in_range("smote_nc", "k", k, 1))
        self.ratio = check_ratio("smote_nc", ratio)
        if not categories:
            raise ConfigError(
                "resampler 'smote_nc' is for tables with columns of categories, these data have none; use "
                "resampler=smote"
            )
        self.categories = categories
        need_imblearn("smote_nc")

    def check(self, input_shape: tuple[int, ...]) -> None:
        """Refuse a table of categories alone, which SMOTE-NC's distances are not defined for.

        Raises:
            ConfigError: there is no column of numbers.
        """
        super().check(input_shape)
        if sum(stop - start for start, stop in self.categories) >= input_shape[0]:
            raise ConfigError(
                "resampler 'smote_nc' needs a column of numbers beside those of categories, this table has none; set "
                "resampler=none"
            )

    def resample(self, x: Inputs, y: Labels, seed: int) -> tuple[Inputs, Labels]:
        """See `Resampler.resample`; the client's rows come first, unchanged."""
        from imblearn.over_sampling import SMOTENC

        random, coded = np.random.RandomState(seed), encode(x, self.categories)
        columns = list(range(coded.shape[1] - len(self.categories), coded.shape[1]))

        def made(label: int, wanted: int, held: int) -> Inputs:
            rule = SMOTENC(
                columns,
                sampling_strategy={label: wanted},
                k_neighbors=min(self.k, held - 1),
                random_state=random,
            )
            return decode(rule.fit_resample(coded, y)[0][len(x) :], self.categories, x.shape[1])

        return grown(x, y, self.ratio, made)


def encode(x: Inputs, categories: Categories) -> NDArray[np.float64]:
    """Rows [n, d] -> the columns of numbers, then for each categorical column its category's position, or its number of
    categories where the row has none of them."""
    numbers = np.delete(x, [j for start, stop in categories for j in range(start, stop)], axis=1)
    codes = []
    for start, stop in categories:
        block = x[:, start:stop]
        codes.append(np.where(block.any(axis=1), block.argmax(axis=1), stop - start))
    return np.column_stack([numbers.astype(np.float64), *codes])


def decode(coded: NDArray[np.floating], categories: Categories, width: int) -> Inputs:
    """Inverse of `encode`: rows [n, width] float32."""
    x = np.zeros((len(coded), width), dtype=np.float32)
    taken = [j for start, stop in categories for j in range(start, stop)]
    numbers = np.setdiff1d(np.arange(width), taken)
    x[:, numbers] = coded[:, : len(numbers)]
    for at, (start, stop) in enumerate(categories, start=len(numbers)):
        x[:, start:stop] = coded[:, at].astype(np.int64)[:, None] == np.arange(stop - start)
    return x
