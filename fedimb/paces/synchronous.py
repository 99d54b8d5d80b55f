"""Paces with rounds: wait for all, ask more than needed, wait until a deadline, or draw clients of one speed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

import numpy as np

from fedimb.errors import ConfigError
from fedimb.paces.base import SECOND, PaceSettings, Pool, RoundPace
from fedimb.registry import register
from fedimb.registry.arguments import Positive, PositiveCount, Range


@dataclass(frozen=True)
class SyncSettings(PaceSettings):
    """Settings of `sync`.

    Attributes:
        clock: whether virtual time is counted; false: all other settings must be as they are.
    """

    clock: bool = False

    def __post_init__(self) -> None:
        """Refuse settings of a clock that does not run."""
        super().__post_init__()
        changed = [f.name for f in fields(self) if f.name != "clock" and getattr(self, f.name) != f.default]
        if changed and not self.clock:
            raise ValueError(f"{changed[0]} is of a clock that does not run; set pace.clock=true")


@register("pace", "sync")
class Sync(RoundPace):
    """Each round waits for all of its cohort."""

    settings: SyncSettings

    def __init__(self, settings: SyncSettings) -> None:
        super().__init__(settings)


@dataclass(frozen=True)
class OversampleSettings(PaceSettings):
    """Settings of `oversample`.

    Attributes:
        over: clients asked, in units of the cohort that is wanted; rounded up.
    """

    over: Annotated[float, Range(1)] = 1.3


@register("pace", "oversample", paced=True)
class Oversample(RoundPace):
    """Each round asks more clients than it needs and takes the first replies.

    Bonawitz et al., "Towards federated learning at scale", MLSys 2019.
    """

    settings: OversampleSettings

    def __init__(self, settings: OversampleSettings) -> None:
        super().__init__(settings)

    def asks(self, size: int) -> int:
        """The size times ``over``, rounded up."""
        return math.ceil(round(self.settings.over * size, 9))

    def closes(self, arrivals: Sequence[int], size: int, lost: Sequence[int] = ()) -> tuple[int, int]:
        """The first ``size`` replies, and when the last of them comes; if fewer come, it waits for the lost too."""
        if len(arrivals) < size:
            return super().closes(arrivals, size, lost)
        return size, arrivals[size - 1] if size else 0


@dataclass(frozen=True)
class DeadlineSettings(PaceSettings):
    """Settings of `deadline`.

    Attributes:
        after_s: when a round ends; null: by ``quantile``.
        quantile: share of the clients with rows that are expected to be in time.
    """

    after_s: Positive | None = None
    quantile: Annotated[float, Range(0, 1, low_allowed=False)] = 0.9


@register("pace", "deadline", paced=True)
class Deadline(RoundPace):
    """Each round takes the replies that come by a deadline.

    Nishio and Yonetani, "Client selection for federated learning with heterogeneous resources", ICC 2019, without
    their choice of clients.
    """

    late_fail: ClassVar[bool] = True
    settings: DeadlineSettings

    def __init__(self, settings: DeadlineSettings) -> None:
        super().__init__(settings)
        self.after = 0 if settings.after_s is None else round(settings.after_s * SECOND)

    def prepare(self, clients: np.ndarray, expected: np.ndarray) -> None:
        """Find the deadline. Raises ConfigError when no client is expected to be in time."""
        if self.settings.after_s is None:
            self.after = int(np.quantile(expected, self.settings.quantile, method="inverted_cdf"))
        elif self.after < expected.min():
            raise ConfigError(
                f"pace.after_s={self.settings.after_s:g}: the fastest client is expected to take "
                f"{expected.min() / SECOND:.3g} virtual seconds, so nobody would be in time; give more, or null"
            )

    def closes(self, arrivals: Sequence[int], size: int, lost: Sequence[int] = ()) -> tuple[int, int]:
        """The replies that are in time; if everybody's is, the round ends with the last."""
        taken = sum(one <= self.after for one in arrivals)
        return taken, self.after if lost or taken < len(arrivals) else max(arrivals, default=0)


@dataclass(frozen=True)
class TieredSettings(PaceSettings):
    """Settings of `tiered`.

    Attributes:
        tiers: groups of clients by expected time, of about equal size.
        probabilities: how often a round draws from each tier, the fastest first; null: by the number of its clients.
    """

    tiers: PositiveCount = 5
    probabilities: tuple[Annotated[float, Range(0)], ...] | None = None

    def __post_init__(self) -> None:
        """Refuse probabilities that are none, or of another number of tiers."""
        super().__post_init__()
        given = self.probabilities
        if given is None:
            return
        if len(given) != self.tiers or not all(0 < one <= 1 for one in given) or abs(sum(given) - 1) > 1e-9:
            raise ValueError(
                f"probabilities={list(given)}: give {self.tiers} numbers above 0 that add up to 1, or null"
            )


@register("pace", "tiered", paced=True)
class Tiered(RoundPace):
    """Each round draws its cohort from one group of clients that take about as long.

    Chai et al., "TiFL: a tier-based federated learning system", HPDC 2020, without its adaptive choice of tiers. The
    mean update of a tier that is drawn more often than its clients are many counts for as much less, so that in
    expectation clients count alike whatever the probabilities (Horvitz and Thompson 1952).
    """

    settings: TieredSettings

    def __init__(self, settings: TieredSettings) -> None:
        super().__init__(settings)
        self.tiers: list[Pool] = []
        self.probabilities = np.zeros(0)

    def prepare(self, clients: np.ndarray, expected: np.ndarray) -> None:
        """Cut the clients into tiers. Raises ConfigError when they are fewer than tiers."""
        count = self.settings.tiers
        if count > len(clients):
            raise ConfigError(f"pace.tiers={count}, and {len(clients)} clients have rows; give at most as many")
        order = clients[np.lexsort((clients, expected))]
        parts = [np.sort(part) for part in np.array_split(order, count)]
        shares = np.array([len(part) / len(clients) for part in parts])
        given = self.settings.probabilities
        self.probabilities = shares if given is None else np.array(given) / sum(given)
        steps = np.ones(count) if given is None else shares / self.probabilities
        self.tiers = [Pool(part, float(step)) for part, step in zip(parts, steps, strict=True)]

    def pool(self, rng: np.random.Generator) -> Pool:
        """One tier."""
        return self.tiers[int(rng.choice(len(self.tiers), p=self.probabilities))]
