"""Attacks in which each attacker changes its own update: scaled_update, sign_flip, free_rider."""

from dataclasses import dataclass

import numpy as np

from fedimb.attacks.base import Attack, AttackSettings, Known
from fedimb.attacks.label_flip import scaled
from fedimb.records import Arrays
from fedimb.registry import register
from fedimb.registry.arguments import NonNegative, Positive


@dataclass(frozen=True)
class ScaledSettings(AttackSettings):
    """Settings of `scaled_update`.

    Attributes:
        factor: the update is multiplied by this; about the number of clients, to replace the mean by the attacker's.
    """

    factor: Positive = 10.0


@register("attack", "scaled_update")
class ScaledUpdate(Attack):
    """The attacker's own update, many times as long, so that the mean is its update.

    Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020, eq. 3 (model replacement).
    """

    settings: ScaledSettings

    def __init__(self, settings: ScaledSettings, known: Known) -> None:
        super().__init__(settings, known)

    def update(self, received: Arrays, trained: Arrays, rng: np.random.Generator) -> Arrays:
        """See `Attack.update`."""
        return scaled(received, trained, self.settings.factor)


@dataclass(frozen=True)
class SignSettings(AttackSettings):
    """Settings of `sign_flip`.

    Attributes:
        factor: length of the reversed update, in lengths of the honest one.
    """

    factor: Positive = 1.0


@register("attack", "sign_flip")
class SignFlip(Attack):
    """The reverse of the attacker's own update.

    Li et al., "RSA: Byzantine-Robust Stochastic Aggregation Methods", AAAI 2019, section 5 (sign-flipping attack).
    """

    settings: SignSettings

    def __init__(self, settings: SignSettings, known: Known) -> None:
        super().__init__(settings, known)

    def update(self, received: Arrays, trained: Arrays, rng: np.random.Generator) -> Arrays:
        """See `Attack.update`."""
        return scaled(received, trained, -self.settings.factor)


@dataclass(frozen=True)
class FreeRiderSettings(AttackSettings):
    """Settings of `free_rider`.

    Attributes:
        noise: standard deviation of the noise on every weight that disguises the rider; 0: the received model as it is.
    """

    noise: NonNegative = 0.001


@register("attack", "free_rider")
class FreeRider(Attack):
    """The received model with a little noise, sent as if it had been trained.

    Fraboni et al., "Free-rider Attacks on Model Aggregation in Federated Learning", AISTATS 2021 (disguised
    free-riding with additive noise of constant size).
    """

    settings: FreeRiderSettings

    def __init__(self, settings: FreeRiderSettings, known: Known) -> None:
        super().__init__(settings, known)

    def update(self, received: Arrays, trained: Arrays, rng: np.random.Generator) -> Arrays:
        """See `Attack.update`."""
        sigma = self.settings.noise
        return {k: (received[k] + sigma * rng.standard_normal(v.shape)).astype(v.dtype) for k, v in trained.items()}
