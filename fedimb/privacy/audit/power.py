"""Power analysis: would the gate have noticed near copies of training records, planted among the samples?

Passing tests that could not have failed does not show that a class is safe.
"""

import numpy as np

from fedimb.privacy.audit.class_tests import ClassDistances, Space
from fedimb.privacy.audit.distances import Scale, nearest_records
from fedimb.privacy.audit.types import Batch, GateSettings, Ids

POOL = 64


def plant_copies(
    train: Batch,
    space: Space,
    scale: Scale,
    holdout: Ids,
    copies: int,
    settings: GateSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """Make near copies [p, *shape] of a class's training records, each record about equally often.

    Args:
        train: training records of the class.
        space: space of the records themselves.
        scale: standardisation of that space.
        holdout: the class's positions in ``space.holdout``.
        copies: how many are needed at once.
    """
    apart = float(np.median(nearest_records(space.holdout[holdout], space.train)[0]))
    rows = np.resize(rng.permutation(len(train)), max(len(train), copies, POOL))
    noise = rng.normal(size=(len(rows), len(scale.std)))
    noise *= settings.near * apart / np.linalg.norm(noise, axis=1, keepdims=True)
    moved: np.ndarray = train.x[rows] + (noise * scale.std).reshape(len(rows), *train.x.shape[1:])
    return moved


def power(
    near: list[ClassDistances],
    pool: list[ClassDistances],
    settings: GateSettings,
    alpha: float,
    rng: np.random.Generator,
) -> float:
    """Share of repetitions in which a distance test detects the planted copies.

    They replace the samples nearest to training records: if those already were copies, adding more would measure how
    well twice as many are detected.

    Args:
        near: the actual samples, one entry per space.
        pool: near copies to plant, in the same spaces.
    """
    samples, copies = len(near[0].close), len(pool[0].close)
    count = max(1, round(settings.copied * samples))
    rows = np.argsort(near[0].close, kind="stable")[:count]
    noticed = 0
    for _ in range(settings.draws):
        source = rng.permutation(copies)[:count]
        noticed += any(
            own.with_samples(rows, other, source).judge(settings, alpha)[1]
            for own, other in zip(near, pool, strict=True)
        )
    return noticed / settings.draws
