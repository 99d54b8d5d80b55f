"""Where clients' masks and noise come from: in a simulation the run's seed, at a hospital what the coordinator lacks.

A seed repeats a run and hides nothing from who knows it; the coordinator does. So a node brings secrets of its own
(`fedimb.deploy.site.pairwise_masks.NodeSecrets`), and everything that masks or noises asks `ClientContext.secrets`.
Source: ours.
"""

from typing import Protocol

import numpy as np

from fedimb.schema import RunConfig
from fedimb.seeds import Stream, numpy_rng


class Asked(Protocol):
    """What is known of the message that is answered."""

    @property
    def client(self) -> int:
        """Stable id."""
        ...

    @property
    def step(self) -> int:
        """Number of the message."""
        ...

    @property
    def config(self) -> RunConfig:
        """Of the run."""
        ...


class Secrets(Protocol):
    """Draws that others must not be able to repeat. The same message draws the same again; another one others."""

    def mask(self, asked: Asked, clients: list[int], low: int, high: int, count: int) -> np.ndarray:
        """The mask [count] uint64 that clients low and high share for this sum over ``clients``."""
        ...

    def normal(self, asked: Asked, stream: Stream, count: int) -> np.ndarray:
        """Standard normal numbers [count] float64 for one purpose."""
        ...


class FromSeed:
    """A simulation's: they show message, size and cost, and protect nobody."""

    def mask(self, asked: Asked, clients: list[int], low: int, high: int, count: int) -> np.ndarray:
        """By message too: masks used twice would show how the values changed in between."""
        rng = numpy_rng(asked.config.seed, Stream.MASK, asked.step, low << 32 | high)
        return rng.integers(0, 2**64, size=count, dtype=np.uint64)

    def normal(self, asked: Asked, stream: Stream, count: int) -> np.ndarray:
        """From the client's own stream."""
        return numpy_rng(asked.config.seed, stream, asked.step, asked.client).standard_normal(count)


SIMULATED = FromSeed()
