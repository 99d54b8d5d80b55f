"""A client's update, clipped and noised before it leaves: DP-FedAvg at the level of clients.

McMahan, Ramage, Talwar and Zhang, "Learning Differentially Private Recurrent Language Models", ICLR 2018, with the
noise added by the clients in shares rather than by the server, which then sees no update without noise: of a cohort of
m each adds N(0, (noise clip)^2 / m) to every value. The sum then has N(0, (noise clip)^2), the mean a deviation of
noise clip / m. What that promises, and against whom: `fedimb.privacy.ledger`.

Normal numbers of double precision are no true Gaussian (Mironov, CCS 2012); against who would read their lowest bits
nothing is claimed.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from fedimb.errors import ConfigError, FedimbError
from fedimb.records import Arrays
from fedimb.schema import PrivacyConfig, RunConfig


def share(privacy: PrivacyConfig, cohort: int) -> float:
    """Standard deviation of one client's noise in a cohort of so many."""
    return 0.0 if privacy.clip is None else privacy.noise * privacy.clip / math.sqrt(cohort)


def protected(
    before: Arrays, after: Arrays, clip: float, sigma: float, draw: Callable[[int], np.ndarray]
) -> tuple[Arrays, float]:
    """Weights whose distance from ``before`` is at most ``clip`` in L2 norm over all arrays, plus noise.

    Args:
        before, after: weights received and trained, by name.
        sigma: standard deviation of the noise on each value; 0: none is drawn.
        draw: count -> so many standard normal numbers.

    Returns:
        (weights in the dtypes of ``after``, the norm before clipping). Of an update that is not finite nothing is
        made good: the weights are NaN, and the server leaves the reply out.
    """
    update = {name: after[name].astype(np.float64) - before[name] for name in after}
    norm = math.sqrt(math.fsum(float(np.sum(value**2)) for value in update.values()))
    scale = min(1.0, clip / norm) if norm > 0 else 1.0
    made: Arrays = {}
    for name, value in update.items():
        noise = sigma * draw(value.size).reshape(value.shape) if sigma > 0 else 0.0
        made[name] = np.asarray(before[name] + scale * value + noise, after[name].dtype)
    return made, norm


def cohort_of(config: RunConfig, step: dict[str, Any]) -> int:
    """How many clients the round's message says there are. FedimbError: more than the run has, which would leave less
    noise than was agreed to.
    """
    cohort = int(step.get("cohort", 0))
    if not 1 <= cohort <= config.clients.count:
        raise FedimbError(
            f"the message says that {cohort} clients train in this round; this run has 1 to {config.clients.count}, "
            "and by that number each cuts its noise"
        )
    return cohort


def check_model(privacy: PrivacyConfig, model: nn.Module) -> None:
    """Refuse a model with statistics that would leave without noise. Raises ConfigError."""
    if privacy.noise > 0 and len(list(model.buffers())):
        raise ConfigError(
            f"privacy.noise={privacy.noise:g} is added to trained weights, and {type(model).__name__} sends running "
            "statistics besides: set model.norm=group"
        )
