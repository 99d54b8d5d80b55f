"""Batches for the export gate's tests: honest and leaking generators of Gaussian records, and a SMOTE of ten lines."""

import numpy as np

from fedimb.privacy.audit.gate import GateSettings, audit
from fedimb.privacy.audit.types import Batch


def batch(x, label=0, **more):
    """Records [n, *shape] of one class as float32."""
    return Batch(np.asarray(x, np.float32), np.full(len(x), label, np.int64), **more)


def gaussian(rng, *counts, features=8):
    """Arrays [n, features] of independent standard normal records, one per count."""
    return [rng.normal(size=(n, features)) for n in counts]


def copying(rng, train, count, of=5, noise=0.05):
    """A generator that has memorised the first ``of`` records: noisy copies of them."""
    return train[rng.integers(of, size=count)] + noise * rng.normal(size=(count, *train.shape[1:]))


def smote(x, count, k, rng):
    """Chawla et al. 2002: a point at random on the segment from a record to one of its k nearest."""
    rows = np.asarray(x, np.float64).reshape(len(x), -1)
    apart = ((rows[:, None] - rows) ** 2).sum(-1)
    np.fill_diagonal(apart, np.inf)
    near = apart.argsort(1)[:, : min(k, len(rows) - 1)]
    start = rng.integers(len(rows), size=count)
    end = near[start, rng.integers(near.shape[1], size=count)]
    made = rows[start] + rng.random((count, 1)) * (rows[end] - rows[start])
    return made.reshape(count, *np.shape(x)[1:]).astype(np.float32)


SMALL = GateSettings(draws=15, bootstrap=50)


def verdict(made, train, holdout, settings=SMALL, seed=0, **more):
    """What the gate says of one class."""
    return audit(batch(made), batch(train), batch(holdout), settings, np.random.default_rng(seed), **more).verdicts[0]
