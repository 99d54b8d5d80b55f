"""Base class of attacks, what attackers know, and which clients attack.

An attacker is a simulated client that follows the protocol but lies: its message types, records and shapes are those
of the others, so every reply passes the same admission as a real one. Where an attack does not say otherwise, an
attacker knows the model it receives, its own rows, the minority classes, and nothing of the honest clients. Attackers
that collude (``colludes = True``) also know the updates that each of their group would have sent honestly, and how many
clients train in the round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from torch import Generator, Tensor

from fedimb.errors import ConfigError
from fedimb.records import Arrays
from fedimb.registry.arguments import PositiveCount, Range
from fedimb.seeds import Stream, numpy_rng

Fraction = Annotated[float, Range(0, 1, low_allowed=False, high_allowed=False)]


@dataclass(frozen=True)
class AttackSettings:
    """Settings of every attack.

    Attributes:
        fraction: share of the clients with rows that attack, to the nearest whole client and at least one.
        start: the first training round in which they attack; before, they do as the others.
    """

    fraction: Fraction = 0.1
    start: PositiveCount = 1


@dataclass(frozen=True)
class Known:
    """What attackers know of the task.

    Attributes:
        n_classes: number of classes C.
        rare: ids of the minority classes, the rarest first.
        common: id of the class with most rows.
        input_shape: shape of one row.
        head: names of the trainable arrays with one row per class, [C, ...], of the classifier's last layer.
    """

    n_classes: int
    rare: tuple[int, ...]
    common: int
    input_shape: tuple[int, ...] = ()
    head: tuple[str, ...] = ()


class Attack:
    """Base class: an attacker that does what it should. Override what the attack changes.

    Attributes:
        colludes: whether attackers share their honest updates and `collude` makes what they send.

    Args:
        settings: of the attack.
        known: what attackers know.
    """

    colludes: ClassVar[bool] = False
    flags: ClassVar[dict[str, Any]] = {}

    def __init__(self, settings: AttackSettings, known: Known) -> None:
        self.settings, self.known = settings, known

    def poison(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """The rows an attacker trains on, from its own: x [m, *shape] float32, y [m] int64; neither may be changed.

        Args:
            generator: the same for a client in every round, so that the same rows are chosen.
        """
        return x, y

    def update(self, received: Arrays, trained: Arrays, rng: np.random.Generator) -> Arrays:
        """The weights an attacker sends, by name, in the dtypes of ``trained``.

        Args:
            received, trained: the model it got, and its own after training.
            rng: of this client and round.
        """
        return trained

    def weight(self, weight: float) -> float:
        """The weight in the mean that an attacker claims, from its true one."""
        return weight

    def rows(self, rows: int) -> int:
        """The number of rows that an attacker was approved with, from the true one: replies are checked against it."""
        return rows

    def counts(self, counts: np.ndarray) -> np.ndarray:
        """The class counts [C] int64 that an attacker claims, from the true ones."""
        return counts

    def collude(
        self, received: Arrays, honest: Mapping[int, Arrays], cohort: int, rng: np.random.Generator
    ) -> Mapping[int, Arrays]:
        """What each attacker of the round sends, by client id.

        Args:
            received: the model that all clients got.
            honest: client id -> the weights it would have sent, of the attackers only, float32.
            cohort: clients that train in the round, attackers included.
            rng: of this round.
        """
        return honest

    def trigger(self, x: Tensor) -> Tensor:
        """Rows as they are shown to a poisoned model, to make it predict the `target`; by default unchanged."""
        return x

    def aim(self) -> tuple[tuple[int, ...], int] | None:
        """(source classes, target class) of an attack that wants rows of the one predicted as the other, else None."""
        return None


def attackers_of(seed: int, fraction: float, holders: Sequence[int]) -> tuple[int, ...]:
    """The clients that attack, sorted: drawn once per run; those of a smaller fraction are among those of a larger.

    Args:
        holders: ids of the clients with rows.

    Raises:
        ConfigError: nobody would be left who does not attack.
    """
    count = max(1, round(fraction * len(holders)))
    if count >= len(holders):
        raise ConfigError(
            f"attack.fraction={fraction:g}: {count} of {len(holders)} clients with rows would attack; lower it, or "
            "use more clients, so that at least one is honest"
        )
    return tuple(sorted(int(c) for c in numpy_rng(seed, Stream.ATTACKERS).permutation(list(holders))[:count]))


def known_class(attack: str, key: str, value: int | None, known: Known) -> None:
    """Check a setting that names a class. Raises ConfigError if there is no such class."""
    if value is not None and not 0 <= value < known.n_classes:
        raise ConfigError(f"attack '{attack}': {key}={value}: give a class id from 0 to {known.n_classes - 1}, or null")


def updates_of(received: Arrays, weights: Mapping[int, Arrays]) -> dict[int, np.ndarray]:
    """Each client's update (trained minus received) as one vector [P] float64, arrays in the model's order."""
    return {
        client: np.concatenate([own[k].ravel().astype(np.float64) - received[k].ravel() for k in received])
        for client, own in weights.items()
    }


def weights_from(received: Arrays, update: np.ndarray) -> Arrays:
    """Inverse of `updates_of` for one client: weights in the dtypes of ``received``."""
    parts = np.split(update, np.cumsum([value.size for value in received.values()])[:-1])
    return {
        key: (value + part.reshape(value.shape)).astype(value.dtype)
        for (key, value), part in zip(received.items(), parts, strict=True)
    }


__all__ = [
    "Attack",
    "AttackSettings",
    "Fraction",
    "Known",
    "attackers_of",
    "known_class",
    "updates_of",
    "weights_from",
]
