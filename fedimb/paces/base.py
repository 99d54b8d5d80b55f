"""What a pace decides, and the settings of the clock that every pace shares.

A pace knows how long clients take (`fedimb.paces.latency`) and nothing of what they compute: so who is asked, who is in
time and, without rounds, which update goes into which version of the model are known before any client trains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from fedimb.registry.arguments import NonNegative, Positive, Range, Share

SECOND = 10**9
"""Nanoseconds: the clock counts whole ones."""


@dataclass(frozen=True)
class PaceSettings:
    """How long simulated clients take; nobody waits. Times in virtual seconds.

    Attributes:
        step_s: time of one local step of an ordinary client.
        sigma: standard deviation of the logarithm of the clients' times for a step.
        slow: share of the clients that are slow besides: those with the longest times by `sigma`.
        slow_factor: how many times as long a slow client's step takes.
        correlate: what slow clients have more of: the share of minority rows, rows, or neither.
        rho: correlation of the logarithm of a client's time with the rank of that; below 0: they have less of it.
        jitter: standard deviation of the logarithm of one training's time around its client's.
        mbit_s: median of the clients' bandwidth up, in megabits per second; down is five times as fast.
        clock: whether virtual time is counted; only ``sync`` works without.
    """

    step_s: Positive = 0.01
    sigma: NonNegative = 0.5
    slow: Share = 0.0
    slow_factor: Annotated[float, Range(1)] = 10.0
    correlate: Literal["none", "minority", "size"] = "none"
    rho: Annotated[float, Range(-1, 1)] = 0.0
    jitter: NonNegative = 0.1
    mbit_s: Positive = 20.0
    clock: bool = True

    def __post_init__(self) -> None:
        """Refuse a correlation with nothing, and a pace without its clock."""
        if self.rho and self.correlate == "none":
            raise ValueError(f"rho={self.rho:g} is a correlation: set correlate=minority or size, or rho=0")
        if not self.clock and type(self).clock:
            raise ValueError("clock=false: only pace=sync works without its clock; set pace.clock=true")


@dataclass(frozen=True)
class Pool:
    """The clients that a round's cohort is drawn from.

    Attributes:
        clients: their ids [n], sorted.
        step: factor on the mean update of a cohort from this pool.
    """

    clients: np.ndarray
    step: float = 1.0


class Pace:
    """Base class of paces.

    Args:
        settings: of the pace and its clock.

    Attributes:
        asynchronous: whether there are no rounds (`fedimb.paces.asynchronous.AsynchronousPace`).
    """

    asynchronous: ClassVar[bool] = False

    def __init__(self, settings: PaceSettings) -> None:
        self.settings = settings

    @property
    def timed(self) -> bool:
        """Whether the clock runs."""
        return self.settings.clock


class RoundPace(Pace):
    """A pace with rounds. Override what it decides; by default a round waits for all of its cohort.

    Attributes:
        late_fail: whether clients that are late count as failed (``clients.min_reply_fraction``).
    """

    late_fail: ClassVar[bool] = False

    def prepare(self, clients: np.ndarray, expected: np.ndarray) -> None:
        """Take note of the clients before the first round.

        Args:
            clients: ids [N] of the clients with rows, sorted.
            expected: time [N] int64 that each takes without jitter, in nanoseconds.

        Raises:
            ConfigError: a setting that does not suit them.
        """

    def pool(self, rng: np.random.Generator) -> Pool | None:
        """The clients that this round draws from, by the round's generator; None: all."""
        return None

    def asks(self, size: int) -> int:
        """How many clients are asked, for a cohort of ``size``."""
        return size

    def closes(self, arrivals: Sequence[int], size: int, lost: Sequence[int] = ()) -> tuple[int, int]:
        """How many replies the round takes, and when it ends.

        Args:
            arrivals: when each reply comes, in nanoseconds since the round began, sorted.
            size: of the cohort that is wanted.
            lost: planned times of the clients whose reply never comes, sorted: until then nobody knows that it does
                not.

        Returns:
            the number of replies taken, the first to come, and the end in nanoseconds.
        """
        return len(arrivals), max([*arrivals, *lost], default=0)
