"""A picture of who holds the rare classes: rows of them at each client, the clients with most of them first."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedimb.data.exposure import exposure
from fedimb.report.html.pictures import INK, figure, svg, tidy
from fedimb.rundir.partition_picture import FAINT, RARE
from fedimb.study.results import Setting
from fedimb.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS = 12
_APART = 4
"""More minority classes than these are drawn as one sum: more shades of a colour cannot be told apart."""
_SHADES = ("#7a2d0a", RARE, "#e8965f", "#f3cdb4")
_NAME = 18


def holders_svg(setting: Setting, name: str) -> str:
    """Rows of the minority classes at each client; empty if no class is rare, or the sites count their own rows.

    Args:
        setting: whose `counts` [K, C] are drawn; clients beyond the first twelve are one bar, which says so.
        name: of the picture, unique on the page.
    """
    held = rare_counts(setting)
    if held is None:
        return ""
    total = held.sum(axis=1)
    order = np.argsort(-total, kind="stable")
    shown, rest = (order, order[:0]) if len(order) <= _BARS else (order[: _BARS - 1], order[_BARS - 1 :])
    bars = np.concatenate([held[shown], held[rest].sum(axis=0, keepdims=True)]) if len(rest) else held[shown]
    names = [f"client {k}" for k in shown] + ([f"{len(rest):,} others together"] if len(rest) else [])
    parts = [setting.class_names[c] for c in setting.minority]
    if len(parts) > _APART:
        bars, parts = bars.sum(axis=1, keepdims=True), [f"{len(parts)} minority classes together"]
    axes = figure(5.6, max(3.1, 1.2 + 0.24 * len(bars))).add_subplot()
    tidy(axes)
    axes.grid(visible=False)
    _draw(axes, bars, int(total.sum()))
    axes.set_yticks(range(len(bars)), names)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("training rows of the minority", fontsize=10.5)
    if len(parts) > 1:
        marks = [axes.barh([0], [0], color=_SHADES[at], label=_short(part)) for at, part in enumerate(parts)]
        axes.legend(handles=marks, loc="lower right", frameon=False, fontsize=9.5)
    return svg(axes.figure, name, f"rows of the minority at each client: {' '.join(holders_lines(setting))}")


def _draw(axes: "Axes", bars: NDArray[np.int64], total: int) -> None:
    """Stacked bars, each with its sum and its share of all rows of the minority."""
    left = np.zeros(len(bars))
    for at, part in enumerate(bars.T):
        axes.barh(range(len(bars)), part, left=left, height=0.66, color=_SHADES[at if bars.shape[1] > 1 else 1])
        left += part
    for place, n in enumerate(bars.sum(axis=1).tolist()):
        text, colour = (f"{n:,} ({n / total:.0%})", INK) if n else ("none", FAINT)
        axes.annotate(text, (n, place), (4, 0), textcoords="offset points", va="center", fontsize=9.5, color=colour)
    axes.set_xlim(0, 1.3 * left.max())


def holders_lines(setting: Setting) -> list[str]:
    """A sentence on each minority class: how many clients have it, and how much of it the largest holder has."""
    held = rare_counts(setting)
    if held is None:
        return []
    facts, clients = exposure(held), len(held)
    lines = []
    for at, c in enumerate(setting.minority):
        name, holders = setting.class_names[c], int(facts["holders"][at])
        if not holders:
            lines.append(f"{name}: no client has a row.")
            continue
        share = f"the largest holder has {facts['top1_mass'][at]:.0%} of its {held[:, at].sum():,} rows"
        lines.append(f"{name}: {holders:,} of {clients:,} clients have any; {share}.")
    if len(lines) > _APART:
        none = int((held.sum(axis=1) == 0).sum())
        lines = [f"{none:,} of {clients:,} clients have no row of the {len(lines)} minority classes."]
    return lines


def rare_counts(setting: Setting) -> NDArray[np.int64] | None:
    """Rows of the minority classes at each client, [K, M] int64; None if unknown, or if there are none."""
    if setting.counts is None or not setting.minority or not len(setting.counts):
        return None
    held = np.asarray(setting.counts)[:, list(setting.minority)]
    return held if held.any() else None


def _short(name: str) -> str:
    return shorten(" ".join(name.split()), _NAME)
