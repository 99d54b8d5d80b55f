"""Clips a client's update and adds noise before it leaves: client-level DP-FedAvg.

McMahan, Ramage, Talwar and Zhang, "Learning Differentially Private Recurrent Language Models", ICLR 2018, with the
noise added in shares by the clients rather than by the server, which then sees no update without noise: in a cohort of
m each client adds N(0, (noise clip)^2 / m) to every value. The noise on the sum is then N(0, (noise clip)^2), and on
the mean it has a standard deviation of noise clip / m. What that guarantees, and against whom: `fedimb.privacy.ledger`.

Normal numbers in double precision are not truly Gaussian (Mironov, CCS 2012); nothing is claimed against an adversary
who exploits their lowest bits.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from fedimb.errors import ConfigError, FedimbError
from fedimb.models.base import buffers_of
from fedimb.records import Arrays
from fedimb.schema import PrivacyConfig, RunConfig


def noise_share(privacy: PrivacyConfig, cohort: int) -> float:
    """Standard deviation of one client's noise in a cohort of ``cohort`` clients."""
    return 0.0 if privacy.clip is None else privacy.noise * privacy.clip / math.sqrt(cohort)


def clip_and_noise(
    before: Arrays, after: Arrays, clip: float, sigma: float, draw: Callable[[int], np.ndarray]
) -> tuple[Arrays, float]:
    """Clip the update to L2 norm ``clip`` over all arrays, and add noise.

    Args:
        before, after: weights received and trained, by name.
        sigma: standard deviation of the noise on each value; 0: no noise.
        draw: n -> n standard normal numbers.

    Returns:
        (weights in the dtypes of ``after``, the norm before clipping). An update that is not finite stays so: the
        weights are NaN, and the server leaves the reply out.
    """
    update = {name: after[name].astype(np.float64) - before[name] for name in after}
    norm = math.sqrt(math.fsum(float(np.sum(value**2)) for value in update.values()))
    scale = min(1.0, clip / norm) if norm > 0 else 1.0
    made: Arrays = {}
    for name, value in update.items():
        noise = sigma * draw(value.size).reshape(value.shape) if sigma > 0 else 0.0
        made[name] = np.asarray(before[name] + scale * value + noise, after[name].dtype)
    return made, norm


def cohort_size(config: RunConfig, step: dict[str, Any]) -> int:
    """The cohort size in the round's message.

    Raises:
        FedimbError: more clients than the run has, which would make the noise smaller than agreed.
    """
    cohort = int(step.get("cohort", 0))
    if not 1 <= cohort <= config.clients.count:
        raise FedimbError(
            f"the message says that {cohort} clients train in this round; this run has 1 to {config.clients.count}, "
            "and each client divides its noise by that number"
        )
    return cohort


def check_model(privacy: PrivacyConfig, model: nn.Module) -> None:
    """Refuse a model with running statistics, which would leave without noise. Raises ConfigError."""
    if privacy.noise > 0 and buffers_of(model):
        raise ConfigError(
            f"privacy.noise={privacy.noise:g} is added to trained weights, and {type(model).__name__} sends running "
            "statistics too: set model.norm=group"
        )
