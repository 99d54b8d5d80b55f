"""The check every loss makes of its own numbers: one rule, one wording."""

import math

from fedimb.errors import ConfigError


def in_range(
    loss: str, key: str, value: float, low: float, high: float = math.inf, *, high_allowed: bool = True
) -> float:
    """``value`` when it is finite and low <= value <= high (< high unless ``high_allowed``).

    Raises:
        ConfigError: otherwise, with the loss, the argument, its value and the range.
    """
    if math.isfinite(value) and low <= value and (value <= high if high_allowed else value < high):
        return value
    upper = "" if high == math.inf else f" and {'at most' if high_allowed else 'less than'} {high:g}"
    raise ConfigError(f"loss '{loss}': {key}={value}: give a finite number of at least {low:g}{upper}")
