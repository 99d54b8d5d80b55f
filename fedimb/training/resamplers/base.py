"""Base class of resamplers, and what they share: growing classes, cleaning, and the package behind them.

The rules are imbalanced-learn's (Lemaitre et al., JMLR 2017), each called for one class at a time, so that a class with
few rows has the neighbours that it can have and does not fail the others.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError
from fedimb.registry import arguments
from fedimb.registry.arguments import Range

Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]
Ratio = Annotated[float, Range(0, 1, low_allowed=False)]
"""Rows of a class over those of the client's largest."""
Categories = tuple[tuple[int, int], ...]
"""Of each categorical column of a table: its first one-hot column, and the one after its last."""


class Resampler(ABC):
    """A client's rows before it trains -> the rows it trains on; validation and scores keep the real ones.

    Real records can be reconstructed from rows between records (`fedimb.generation.smote`): nothing that a resampler
    makes is written or sent. A client with rows of fewer than two classes keeps its rows as they are.

    Args of every rule's constructor:
        categories: of a table, the one-hot columns of each of its categorical columns and "missing" marks; empty: there
            are none; None: the data are no table (given by fedimb).
    """

    @abstractmethod
    def resample(self, x: Inputs, y: Labels, seed: int) -> tuple[Inputs, Labels]:
        """Rows x [n, d] float32 and classes y [n] int64 -> rows [m, d] and classes [m] of the same dtypes.

        Args:
            seed: of every draw, at least 0 and below 2**32.
        """

    def check(self, input_shape: tuple[int, ...]) -> None:
        """Refuse data that this rule cannot work on.

        Raises:
            ConfigError: the rows are not vectors.
        """
        if len(input_shape) != 1:
            raise ConfigError(
                f"a resampler compares rows by their distance as vectors, these data are {tuple(input_shape)}; "
                "give embeddings (data=embeddings_npz), or set resampler=none"
            )


def in_range(name: str, key: str, value: float, low: float, high: float = float("inf")) -> float:
    """`fedimb.registry.arguments.in_range` for the resampler of this name."""
    return arguments.in_range(f"resampler '{name}'", key, value, low, high)


def check_ratio(name: str, ratio: float) -> float:
    """The ratio if it is above 0 and at most 1; ConfigError otherwise."""
    return arguments.in_range(f"resampler '{name}'", "ratio", ratio, 0, 1, low_allowed=False)


def refuse_categories(name: str, categories: Categories | None) -> None:
    """ConfigError for a table with categories, between which no numbers can be drawn."""
    if categories:
        raise ConfigError(
            f"resampler '{name}' draws numbers between rows, and this table has {len(categories)} columns of "
            "categories or missing marks, which would become neither; use resampler=smote_nc"
        )


def need_imblearn(name: str) -> None:
    """Raise ConfigError unless imbalanced-learn can be imported."""
    try:
        import imblearn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"resampler '{name}' needs the package imbalanced-learn: pip install 'fedimb[resample]'"
        ) from error


def grown(
    x: Inputs, y: Labels, ratio: float, made: Callable[[int, int, int], NDArray[np.floating]]
) -> tuple[Inputs, Labels]:
    """The rows, and after them new ones of each class that has at least two rows and fewer than wanted, by class.

    Args:
        ratio: wanted rows of each class, over those of the largest class.
        made: class, wanted rows and rows held -> the new rows [k, d].
    """
    classes, counts = np.unique(y, return_counts=True)
    wanted = int(ratio * counts.max()) if len(classes) > 1 else 0
    rows, labels = [x], [y]
    for label, held in zip(classes.tolist(), counts.tolist(), strict=True):
        if 1 < held < wanted:
            new = made(label, wanted, held).astype(np.float32)
            rows.append(new)
            labels.append(np.full(len(new), label, dtype=np.int64))
    return np.concatenate(rows), np.concatenate(labels)


def cleaned_classes(y: Labels, keep_minority: bool) -> list[int]:
    """The classes that a cleaning rule may take rows from: all of the client's, or only its largest."""
    classes, counts = np.unique(y, return_counts=True)
    return [int(classes[counts.argmax()])] if keep_minority else classes.tolist()
