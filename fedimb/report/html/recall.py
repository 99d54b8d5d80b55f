"""A picture of recall per class, from the largest to the smallest: the control and the best rows, with intervals."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedimb.report.html.classes import Ranks, recalls
from fedimb.report.html.heat import recall_interval
from fedimb.report.html.legend import Entry, foremost
from fedimb.report.html.pictures import figure, svg, tidy
from fedimb.rundir.partition_picture import RARE
from fedimb.text import shorten

if TYPE_CHECKING:
    pass

DRAWN = 3
"""Rows drawn besides the control: more intervals would be hard to distinguish; the table below has all rows."""
_NAMED = 20


def recall_svg(key: Sequence[Entry], ranks: Ranks, name: str) -> str:
    """Recall per class, head to tail, with the t interval over seeds, or Wilson's for a single run; or empty."""
    drawn = [entry for entry in foremost(key, DRAWN) if len(recalls(entry.row, ranks))]
    if not drawn or not len(ranks):
        return ""
    axes = figure(8.6, 3.5).add_subplot()
    tidy(axes)
    places = np.arange(len(ranks))
    for i in np.flatnonzero(ranks.rare):
        axes.axvspan(i - 0.5, i + 0.5, color=RARE, alpha=0.08, linewidth=0)
    for at, entry in enumerate(drawn):
        mean, *ends = np.array([recall_interval(entry.row, ranks, i) for i in range(len(ranks))]).T
        low, high = np.clip(ends, 0, 1)
        if len(ranks) > _NAMED:
            axes.plot(places, mean, color=entry.colour, linestyle=entry.line["linestyle"], linewidth=1.5)
            axes.fill_between(places, low, high, color=entry.colour, alpha=0.13, linewidth=0)
        else:
            where = places + (at - (len(drawn) - 1) / 2) * 0.17
            axes.vlines(where, low, high, color=entry.colour, linewidth=1.3)
            axes.plot(where, mean, color=entry.colour, marker=entry.marker, linestyle="", markersize=6)
    _class_axis(axes, ranks)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("recall", fontsize=10.5)
    return svg(axes.figure, name, _alt(drawn, ranks))


def _class_axis(axes: Any, ranks: Ranks) -> None:
    axes.set_xlim(-0.6, len(ranks) - 0.4)
    every = max(1, math.ceil(len(ranks) / _NAMED))
    at = list(range(0, len(ranks), every))
    names = [shorten(" ".join(ranks.names[i].split()), 18) for i in at]
    slant = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) * len(at) > 75 else {}
    form = "{} ({:,})" if slant else "{}\n{:,}"
    axes.set_xticks(at, [form.format(n, ranks.train[i]) for n, i in zip(names, at, strict=True)], **slant)
    axes.set_xlabel("class and its training rows, head to tail (tinted: minority)", fontsize=10.5)


def _alt(drawn: Sequence[Entry], ranks: Ranks) -> str:
    rare = np.flatnonzero(ranks.rare)
    parts = []
    for entry in drawn:
        found = recalls(entry.row, ranks)[:, rare]
        known = found[~np.isnan(found)]
        parts.append(f"{entry.row.label} {known.mean():.2f}" if known.size else entry.row.label)
    return "recall per class from head to tail; mean over the minority: " + ", ".join(parts)
