"""A picture of recall per class, from the largest to the smallest: the control and the best rows, with intervals."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedimb.report.html.classes import Ranks, recalls
from fedimb.report.html.heat import recall_interval
from fedimb.report.html.legend import Entry, foremost
from fedimb.report.html.pictures import GRID, figure, svg, tidy
from fedimb.rundir.partition_picture import RARE
from fedimb.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = 3
"""Rows drawn besides the control: more intervals would be hard to distinguish; the table has all rows."""
_NAMED = 20
_WIDTH = 5.6  # inches, as the other pictures: text stays readable when a phone shrinks it to 360 px


def recall_svg(key: Sequence[Entry], ranks: Ranks, name: str) -> str:
    """Recall per class, head to tail, with the t interval over seeds, or Wilson's for a single run; or empty.

    Up to 20 classes one below the other, so that their names can be read; more as a line over their ranks.
    """
    drawn = [entry for entry in foremost(key, DRAWN) if len(recalls(entry.row, ranks))]
    if not drawn or not len(ranks):
        return ""
    axes = _listed(drawn, ranks) if len(ranks) <= _NAMED else _lined(drawn, ranks)
    return svg(axes.figure, name, _alt(drawn, ranks))


def _listed(drawn: Sequence[Entry], ranks: Ranks) -> "Axes":
    """A band per class, a mark and its interval per row of the study in it."""
    band = min(0.45, 8.0 / len(ranks), 0.18 + 0.12 * len(drawn))  # inches
    axes = figure(_WIDTH, max(3.1, 0.7 + band * len(ranks))).add_subplot()
    tidy(axes)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    step = 0.8 / len(drawn)
    for at, entry in enumerate(drawn):
        mean, low, high = _intervals(entry, ranks)
        where = np.arange(len(ranks)) + (at - (len(drawn) - 1) / 2) * step
        axes.hlines(where, low, high, color=entry.colour, linewidth=1.3)
        axes.plot(mean, where, **entry.line | {"linestyle": ""}, markersize=6)
    for i in np.flatnonzero(ranks.rare):
        axes.axhspan(i - 0.5, i + 0.5, color=RARE, alpha=0.08, linewidth=0)
    names = [shorten(" ".join(name.split()), 22) for name in ranks.names]
    names = [f"place {name}" for name in names] if ranks.moved else names
    axes.set_yticks(range(len(ranks)), [f"{n} ({m:,})" for n, m in zip(names, ranks.train, strict=True)])
    axes.set_ylim(len(ranks) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_xlabel("recall", fontsize=10.5)
    return axes


def _lined(drawn: Sequence[Entry], ranks: Ranks) -> "Axes":
    """A line with its band per row of the study, over the ranks of too many classes to name."""
    axes = figure(_WIDTH, 3.5).add_subplot()
    tidy(axes)
    places = np.arange(len(ranks))
    for i in np.flatnonzero(ranks.rare):
        axes.axvspan(i - 0.5, i + 0.5, color=RARE, alpha=0.08, linewidth=0)
    for entry in drawn:
        mean, low, high = _intervals(entry, ranks)
        axes.plot(places, mean, color=entry.colour, linestyle=entry.line["linestyle"], linewidth=1.5)
        axes.fill_between(places, low, high, color=entry.colour, alpha=0.13, linewidth=0)
    at = list(range(0, len(ranks), math.ceil(len(ranks) / _NAMED)))
    names = [shorten(" ".join(ranks.names[i].split()), 18) for i in at]
    form: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(at, [f"{n} ({ranks.train[i]:,})" for n, i in zip(names, at, strict=True)], **form)
    axes.set_xlim(-0.6, len(ranks) - 0.4)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("recall", fontsize=10.5)
    return axes


def _intervals(entry: Entry, ranks: Ranks) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(recall, low, high) by rank, each [C] float64; the ends within 0 to 1."""
    mean, *ends = np.array([recall_interval(entry.row, ranks, i) for i in range(len(ranks))]).T
    low, high = np.clip(ends, 0, 1)
    return mean, low, high


def _alt(drawn: Sequence[Entry], ranks: Ranks) -> str:
    rare = np.flatnonzero(ranks.rare)
    parts = []
    for entry in drawn:
        found = recalls(entry.row, ranks)[:, rare]
        known = found[~np.isnan(found)]
        parts.append(f"{entry.row.label} {known.mean():.2f}" if known.size else entry.row.label)
    return "recall per class from head to tail; mean over the minority: " + ", ".join(parts)
