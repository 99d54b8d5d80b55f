"""Speed as a ratio: what a piece of work takes, measured against a fixed piece of work run beside it.

A bound in seconds says something about the machine that wrote it; a ratio says the same on any.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def yardstick(repeats: int = 3) -> float:
    """Processor seconds of one unit of work on this machine now, one thread: the least of some repeats.

    A unit is 8 products of 1000 x 1000 float32 matrices (16 GFLOP) and 200,000 steps of a Python loop.
    """
    a, threads = torch.ones(1000, 1000), torch.get_num_threads()
    torch.set_num_threads(1)
    taken = []
    try:
        for _ in range(repeats):
            began, total = time.process_time(), 0
            for _ in range(8):
                a @ a
            for step in range(200_000):
                total += step
            taken.append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    return min(taken)


class Ratio:
    """How many units a block took, once it has ended; ``float(ratio)``."""

    units: float = float("nan")

    def __float__(self) -> float:
        return self.units


@contextmanager
def measured() -> Iterator[Ratio]:
    """Processor time of the block in units of `yardstick`, which runs before and after it (the slower one counts)."""
    ratio, before = Ratio(), yardstick()
    began = time.process_time()
    yield ratio
    taken = time.process_time() - began
    ratio.units = taken / max(before, yardstick())
