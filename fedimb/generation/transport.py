"""Samples as a record: images as uint8, a quarter of the size; everything else as float32."""

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import Tensor

from fedimb.generation.examples import Examples
from fedimb.records import array_record, to_numpy

LEVELS = 255
"""Images scaled to 0..1 are sent in steps of 1/255, like 8-bit images."""


def to_record(samples: Examples) -> ArrayRecord:
    """Convert samples to a record: shape (h, w) or (c, h, w) with values in 0..1 as uint8, others as float32."""
    x = samples.x
    if x.ndim > 2 and len(x) and float(x.min()) >= 0 and float(x.max()) <= 1:
        sent = torch.round(x * LEVELS).to(torch.uint8).numpy()
    else:
        sent = x.to(torch.float32).numpy()
    return array_record({"x": sent, "y": samples.y.numpy(), "d": samples.d.numpy()})


def from_record(record: ArrayRecord) -> Examples:
    """Inverse of `to_record`, up to rounding."""
    found = to_numpy(record)
    x = torch.from_numpy(np.array(found["x"]))
    x = x.to(torch.float32) / LEVELS if x.dtype == torch.uint8 else x
    return Examples(x, torch.from_numpy(np.array(found["y"])), torch.from_numpy(np.array(found["d"])))


def select_samples(samples: Examples, rows: Tensor) -> Examples:
    """Select samples by position or by a boolean mask."""
    return Examples(samples.x[rows], samples.y[rows], samples.d[rows])


def concatenate_samples(parts: list[Examples]) -> Examples:
    """Concatenate one or more batches in order."""
    return Examples(
        torch.cat([part.x for part in parts]),
        torch.cat([part.y for part in parts]),
        torch.cat([part.d for part in parts]),
    )
