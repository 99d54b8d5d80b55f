"""A Gaussian-mixture table of any size: for engines, scale tests and users without data."""

from dataclasses import dataclass

import numpy as np

from fedimb.data.arrays import SourceData
from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.seeds import Stream, numpy_rng

_CHUNK = 1 << 16  # rows drawn at a time: the only memory beside x itself


@register("source", "synthetic_table")
@dataclass(frozen=True)
class SyntheticTable:
    """A synthetic table of Gaussian classes, of any size.

    x [rows, features] float32: unit-variance noise around one mean per class; class sizes differ by at most one row.

    Means have random directions and length separation/sqrt(2): nearly orthogonal for many features, so two
    classes are ``separation`` noise standard deviations apart.

    Args:
        rows: >= classes.
        features: >= 1.
        classes: >= 1.
        separation: >= 0; 0 makes classes indistinguishable.
        seed: of the table itself, independent of the run's seed: every run of a sweep sees the same table.
    """

    rows: int = 10_000
    features: int = 41
    classes: int = 5
    separation: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        low = {"features": 1, "classes": 1, "rows": self.classes, "separation": 0, "seed": 0}
        for name, least in low.items():
            if not getattr(self, name) >= least:
                raise ConfigError(f"source 'synthetic_table': {name}={getattr(self, name)}: at least {least} is needed")

    def fingerprint(self) -> str:
        """The arguments: they determine every value."""
        return f"synthetic_table-1-{self.rows}-{self.features}-{self.classes}-{self.separation}-{self.seed}"

    def load(self) -> SourceData:
        """Draw the table, chunk by chunk."""
        rng = numpy_rng(self.seed, Stream.SOURCE)
        means = rng.standard_normal((self.classes, self.features))
        means *= self.separation / np.sqrt(2) / np.linalg.norm(means, axis=1, keepdims=True)
        means = means.astype(np.float32)
        y = np.arange(self.rows, dtype=np.int64) % self.classes
        x = np.empty((self.rows, self.features), dtype=np.float32)
        for start in range(0, self.rows, _CHUNK):
            part = x[start : start + _CHUNK]
            rng.standard_normal(out=part, dtype=np.float32)
            part += means[y[start : start + _CHUNK]]
        return SourceData(x, y, tuple(f"class_{c}" for c in range(self.classes)))
