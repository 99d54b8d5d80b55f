"""Seeds of every random draw of a run: one stream per (run seed, purpose, round, client).

Streams are NumPy SeedSequence spawn keys, so neighbouring seeds are independent (``seed + round + client`` would
collide). Purposes are fixed integers: changing one changes every result, so numbers are only ever added.
"""

from collections.abc import Iterable
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
    LATENCY = 60
    JITTER = 61
    BANDWIDTH = 62
    TIER = 63
    DISPATCH = 64
    SITE_MODELS = 65


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


def uniforms_at(run_seed: int, stream: Stream, indices: Iterable[int], round: int = 0, client: int = 0) -> "np.ndarray":
    """Single values of ``numpy_rng(...).random(n)``, float64 in [0, 1), without drawing the others.

    Args:
        indices: which values, >= 0, in rising order.

    Example:
        >>> all = numpy_rng(3, Stream.DROPOUT, round=2).random(1000)
        >>> bool((uniforms_at(3, Stream.DROPOUT, [7, 8, 999], round=2) == all[[7, 8, 999]]).all())
        True
    """
    bits = np.random.PCG64(seed_int(run_seed, stream, round, client))
    draws, position, found = np.random.Generator(bits), 0, []
    for index in indices:
        if index > position:  # a value takes one step of the generator, and any number of steps is jumped at once
            bits.advance(index - position)
        found.append(draws.random())
        position = index + 1
    return np.array(found)


def torch_generator(
    run_seed: int, stream: Stream, round: int = 0, client: int = 0, device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """A torch generator for one purpose (see `seed_int`)."""
    import torch

    return torch.Generator(device).manual_seed(seed_int(run_seed, stream, round, client))
