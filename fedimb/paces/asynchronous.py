"""Paces without rounds: a client that is done is replaced at once, and updates are applied as they arrive."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from fedimb.errors import ConfigError
from fedimb.paces.base import Pace, PaceSettings
from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, Positive, Range

MOST_EXPONENT = 16.0
"""Of the discount: 2 ** -16 of an update that is one version late is less than its last bits are worth."""

Corrections = Literal["uniform", "exposure"]


@dataclass(frozen=True)
class AsynchronousSettings(PaceSettings):
    """Settings of every pace without rounds.

    Attributes:
        concurrency: clients that train at a time; null: as many as a round would have (``clients.participation``).
        exponent: of the discount (1 + staleness) ** -exponent, at most 16; 0: none.
        max_staleness: updates that are more versions late are not used; null: all are.
        correction: ``exposure``: updates of clients that arrive seldom weigh more in their buffer (see
            `fedimb.paces.schedule`), which must be of at least 2.
    """

    concurrency: Annotated[int | None, Range(1)] = None
    exponent: NonNegative = 0.5
    max_staleness: Annotated[int | None, Range(0)] = None
    correction: Corrections = "uniform"

    def __post_init__(self) -> None:
        """Refuse a discount that leaves nothing of an update that is one version late."""
        super().__post_init__()
        if self.exponent > MOST_EXPONENT:
            raise ValueError(
                f"exponent={self.exponent:g}: an update one version late would count {2.0**-self.exponent:.0e} times, "
                f"which is nothing; give at most {MOST_EXPONENT:g}, or max_staleness=0 to use no late update"
            )


class AsynchronousPace(Pace):
    """Base class of paces without rounds.

    Attributes:
        mixes: whether an update is the client's weights, mixed with the model's (FedAsync), not the difference to the
            version that the client began with.
        rate: factor on each update of the model.
    """

    asynchronous: ClassVar[bool] = True
    mixes: ClassVar[bool] = False
    settings: AsynchronousSettings
    rate: float = 1.0

    def sizes(self, cohort: int, clients: int) -> tuple[int, int]:
        """(clients that train at a time, arrivals that make a version).

        Args:
            cohort: clients of a round, by ``clients.participation``.
            clients: clients with rows.

        Raises:
            ConfigError: more than there are; or weights that are corrected by a factor that would cancel.
        """
        wanted = self.settings.concurrency
        if wanted is not None and wanted > clients:
            raise ConfigError(f"pace.concurrency={wanted}, and {clients} clients have rows; give at most as many")
        concurrency = wanted or cohort
        buffer = self.buffer(concurrency)
        if buffer == 1 and self.settings.correction == "exposure":  # one update over its own weight
            raise ConfigError(
                "pace.correction=exposure changes nothing where each arrival alone makes a version (a buffer of 1): "
                "use pace=buffered with pace.buffer of at least 2, or pace.correction=uniform"
            )
        return concurrency, buffer

    def buffer(self, concurrency: int) -> int:
        """Arrivals that make a version."""
        return 1

    def discount(self, staleness: int) -> float:
        """The factor on an update that is so many versions late, at most 1."""
        return float((1 + staleness) ** -self.settings.exponent)


@dataclass(frozen=True)
class BufferedSettings(AsynchronousSettings):
    """Settings of `buffered`.

    Attributes:
        buffer: arrivals that make a version; null: half of ``concurrency``.
        server_lr: factor on the mean of the updates in the buffer.
    """

    buffer: Annotated[int | None, Range(1)] = None
    server_lr: Positive = 1.0


@register("pace", "buffered", paced=True, asynchronous=True)
class Buffered(AsynchronousPace):
    """FedBuff: no rounds; every few arrivals the mean of their updates is applied.

    Nguyen et al., "Federated learning with buffered asynchronous aggregation", AISTATS 2022. Updates are weighed by
    ``aggregation_weight``; the staleness discount is in the sum, and not in what it is divided by.
    """

    settings: BufferedSettings

    def __init__(self, settings: BufferedSettings) -> None:
        super().__init__(settings)
        self.rate = settings.server_lr

    def buffer(self, concurrency: int) -> int:
        """As configured. Raises ConfigError when fewer clients train at a time."""
        wanted = self.settings.buffer
        if wanted is not None and wanted > concurrency:
            raise ConfigError(
                f"pace.buffer={wanted}: only {concurrency} clients train at a time; lower it, or raise "
                "pace.concurrency (or clients.participation)"
            )
        return wanted or max(1, concurrency // 2)


@dataclass(frozen=True)
class FedAsyncSettings(AsynchronousSettings):
    """Settings of `fedasync`.

    Attributes:
        alpha: share of the client's weights in the model, before the discount.
    """

    alpha: Annotated[float, Range(0, 1, low_allowed=False)] = 0.6


@register("pace", "fedasync", paced=True, asynchronous=True)
class FedAsync(AsynchronousPace):
    """FedAsync: no rounds; the weights of every client that arrives are mixed into the model.

    Xie et al., "Asynchronous federated optimization", 2019 (arXiv 1903.03934), polynomial discount.
    """

    mixes: ClassVar[bool] = True
    settings: FedAsyncSettings

    def __init__(self, settings: FedAsyncSettings) -> None:
        super().__init__(settings)
        self.rate = settings.alpha
