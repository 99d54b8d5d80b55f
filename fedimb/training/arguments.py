"""The check that losses and augmentations make of their own numbers: one rule, one wording."""

import math

from fedimb.errors import ConfigError


def in_range(
    part: str, key: str, value: float, low: float, high: float = math.inf, *, high_allowed: bool = True
) -> float:
    """``value`` when it is finite and low <= value <= high (< high unless ``high_allowed``).

    Args:
        part: kind and name for the message, as in ``loss 'focal'``.

    Raises:
        ConfigError: otherwise, with the part, the argument, its value and the range.
    """
    if math.isfinite(value) and low <= value and (value <= high if high_allowed else value < high):
        return value
    upper = "" if high == math.inf else f" and {'at most' if high_allowed else 'less than'} {high:g}"
    raise ConfigError(f"{part}: {key}={value}: give a finite number of at least {low:g}{upper}")
