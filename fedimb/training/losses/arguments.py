"""The range check of the losses' arguments."""

import math

from fedimb.registry import arguments


def in_range(
    loss: str, key: str, value: float, low: float, high: float = math.inf, *, high_allowed: bool = True
) -> float:
    """`fedimb.registry.arguments.in_range` for the loss of this name."""
    return arguments.in_range(f"loss '{loss}'", key, value, low, high, high_allowed=high_allowed)
