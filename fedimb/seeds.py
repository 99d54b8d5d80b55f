"""Seeds of every random draw of a run: one stream per (run seed, purpose, round, client).

Streams are NumPy SeedSequence spawn keys, so neighbouring seeds are independent (``seed + round + client`` would
collide). Purposes are fixed integers: changing one changes every result, so numbers are only ever added.
"""

from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class Stream(IntEnum):
    """What a draw is for. Never renumber."""

    SPLIT = 0
    TAIL = 1
    PARTITION = 2
    INIT = 3
    COHORT = 4
    AVAILABILITY = 5
    DROPOUT = 6
    SLOW = 7
    TRAIN = 8
    QUERY = 9
    METHOD = 10
    SOURCE = 11
    BOOTSTRAP = 12
    VALIDATION = 13
    MASK = 14
    PRIOR_NOISE = 15
    UPDATE_NOISE = 16
    ATTACKERS = 17
    POISON = 18
    ATTACK = 19
    BUCKETS = 20
    STATISTICS_NOISE = 21
    FOLDS = 22
    RESAMPLE = 23
    CALIBRATION = 40
    EXPLANATION = 50
    SITE_MODELS = 60


@lru_cache(maxsize=4096)
def seed_int(run_seed: int, stream: Stream, round: int = 0, client: int = 0) -> int:
    """One 63-bit seed for (run_seed, stream, round, client); all arguments >= 0.

    63 bits, because torch.Generator takes a signed 64-bit integer.
    """
    sequence = np.random.SeedSequence(entropy=run_seed, spawn_key=(int(stream), round, client))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def numpy_rng(run_seed: int, stream: Stream, round: int = 0, client: int = 0) -> np.random.Generator:
    """A NumPy generator for one purpose (see `seed_int`).

    Example:
        >>> draw = numpy_rng(3, Stream.COHORT, round=7).random()
        >>> draw == numpy_rng(3, Stream.COHORT, round=7).random()
        True
        >>> draw == numpy_rng(3, Stream.COHORT, round=8).random()
        False
    """
    return np.random.default_rng(seed_int(run_seed, stream, round, client))


def torch_generator(
    run_seed: int, stream: Stream, round: int = 0, client: int = 0, device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """A torch generator for one purpose (see `seed_int`)."""
    import torch

    return torch.Generator(device).manual_seed(seed_int(run_seed, stream, round, client))
