"""``data.normalize``: mean and deviation of each channel of images, given or pooled over the clients' training rows.

The model normalises its own inputs with them (`fedimb.models.normalized`): augmentations, encoders and generators see
images as the source scales them, and the numbers are in the configuration that is stored with a model.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fedimb.data.scaling import channel_sums, scaling_of
from fedimb.errors import ConfigError
from fedimb.plain import Settings

if TYPE_CHECKING:
    from fedimb.data.federation import Federation

POOLED = "pooled"


def check_normalize(value: Any) -> None:
    """Raises ConfigError unless null, ``pooled``, or ``{mean: [...], deviation: [...]}`` of numbers.

    A run stores ``pooled`` as its numbers with ``from: pooled``.
    """
    if value is None or value == POOLED:
        return
    fits = isinstance(value, dict) and set(value) - {"from"} == {"mean", "deviation"}
    fits = fits and value.get("from", POOLED) == POOLED
    if fits:
        mean, deviation = value["mean"], value["deviation"]
        fits = all(isinstance(part, list) and part and all(map(_number, part)) for part in (mean, deviation))
        fits = fits and len(mean) == len(deviation) and min(deviation) > 0
    if not fits:
        raise ConfigError(
            f"data.normalize={value!r}: give {{mean: [...], deviation: [...]}} with a number per channel, deviations "
            "above 0; or pooled, or null"
        )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def pooled_normalization(federation: "Federation") -> Settings:
    """Mean and population deviation of every channel over all clients' training images, from their `channel_sums`.

    In the units of the model's inputs (times the store's scale). A constant channel has deviation 1.

    Raises:
        ConfigError: the data are not images.
    """
    store, shape = federation.store, tuple(federation.input_shape)
    if len(shape) not in (2, 3) or store.scaled is not None:
        raise ConfigError(
            f"data.normalize=pooled is for images, these rows have shape {shape}; set data.normalize=null (a table's "
            "columns and a signal's channels are scaled already)"
        )
    sums = np.sum([channel_sums(store.x, rows, shape) for rows in federation.train], axis=0)
    found = scaling_of(sums, np.ones(sums.shape[1], bool))
    constant = (sums[0] * sums[2] - sums[1] ** 2) <= 1e-12 * np.maximum(sums[1] ** 2, 1e-12)
    deviation = np.where(constant, 1.0, found.deviation.astype(np.float64) * store.scale)
    return {
        "from": POOLED,
        "mean": (found.mean.astype(np.float64) * store.scale).tolist(),
        "deviation": deviation.tolist(),
    }
