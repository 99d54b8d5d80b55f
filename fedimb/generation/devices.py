"""Which device a row comes from, and what that device's images look like on average: what a site reports on devices."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.data.store import Store
from fedimb.generation.style import LEAST_ROWS, Style, describe_style, recolour

Arrays = dict[str, NDArray[np.generic]]


def n_devices(store: Store) -> int:
    """Number of devices (sites) the source names; 1 if it names none."""
    return max(1, len(store.site_names or ()))


def device_ids(store: Store, rows: NDArray[np.int64]) -> Tensor:
    """[n] int64 device of each row; all 0 if the source names none."""
    if store.sites is None or n_devices(store) == 1:
        return torch.zeros(len(rows), dtype=torch.int64)
    return torch.from_numpy(np.asarray(store.sites[rows], dtype=np.int64))


def describe_devices(x: Tensor, d: Tensor, devices: int) -> Arrays:
    """Mean and standard deviation per channel, and number of images, of each device with at least 32; others are 0.

    Args:
        x: [n, c, h, w]; d: [n].

    Returns:
        ``mean`` and ``std`` [D, c] float32, ``rows`` [D] int32.
    """
    mean, std = (np.zeros((devices, x.shape[1]), np.float32) for _ in range(2))
    rows = np.zeros(devices, np.int32)
    for device in range(devices):
        own = x[d == device]
        if len(own) >= LEAST_ROWS:
            style = describe_style(own)
            mean[device], std[device], rows[device] = style.mean.numpy(), style.std.numpy(), style.rows
    return {"mean": mean, "std": std, "rows": rows}


def average_styles(reports: Sequence[Mapping[str, NDArray[np.generic]]]) -> dict[int, Style]:
    """Average the clients' `describe_devices` reports, weighted by images; devices nobody described are left out."""
    styles: dict[int, Style] = {}
    for device in range(len(reports[0]["rows"]) if reports else 0):
        weights = np.array([one["rows"][device] for one in reports], np.float64)
        if weights.sum() == 0:
            continue
        share = weights / weights.sum()
        mean = sum(w * one["mean"][device].astype(np.float64) for w, one in zip(share, reports, strict=True))
        square = sum(w * one["std"][device].astype(np.float64) ** 2 for w, one in zip(share, reports, strict=True))
        styles[device] = Style(torch.tensor(mean), torch.tensor(np.sqrt(square)), int(weights.sum()))
    return styles


def restyle(x: Tensor, d: Tensor, foreign: Tensor, styles: Mapping[int, Style], source: Style) -> Tensor:
    """Recolour the images whose device the generator never saw (``foreign`` [n] bool) to that device's style."""
    out = x.clone()
    for device, style in styles.items():
        own = foreign & (d == device)
        out[own] = recolour(x[own], style, source)
    return out
