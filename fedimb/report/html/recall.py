"""Recall from head to tail as a picture: the control and the best rows, with intervals."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedimb.report.html.classes import Ranks, recalls
from fedimb.report.html.curves import chosen, style
from fedimb.report.html.heat import recall_interval
from fedimb.report.html.numbers import Row
from fedimb.report.html.pictures import figure, svg, tidy
from fedimb.report.plots import RARE
from fedimb.report.text import shorten

_DRAWN = 3
"""Rows beside the control: intervals of more cannot be told apart; the table below has all."""
_NAMED = 20


def recall_svg(rows: Sequence[Row], ranks: Ranks, name: str) -> str:
    """Recall by class, head to tail, with the t interval over seeds, or Wilson's of one run; empty without any."""
    drawn = [row for row in chosen(rows, _DRAWN) if len(recalls(row, ranks))]
    if not drawn:
        return ""
    many = len(ranks) > _NAMED
    made = figure(8.6, 3.9)
    axes = made.add_subplot()
    tidy(axes)
    places = np.arange(len(ranks))
    first_rare = [i for i, rare in enumerate(ranks.rare) if rare]
    for i in first_rare:
        axes.axvspan(i - 0.5, i + 0.5, color=RARE, alpha=0.08, linewidth=0)
    for at, row in enumerate(drawn):
        found = np.array([recall_interval(row, ranks, i) for i in range(len(ranks))])
        look = style(row, drawn)
        where = places + (at - (len(drawn) - 1) / 2) * 0.17
        label = f"{row.number} {shorten(' '.join(row.label.split()), 30)}"
        if many:
            axes.plot(places, found[:, 0], color=look["color"], linestyle=look["linestyle"], linewidth=1.5, label=label)
            axes.fill_between(places, *np.clip(found[:, 1:].T, 0, 1), color=look["color"], alpha=0.13, linewidth=0)
            continue
        axes.vlines(where, *np.clip(found[:, 1:].T, 0, 1), color=look["color"], linewidth=1.3)
        axes.plot(where, found[:, 0], color=look["color"], marker=look["marker"], ls="", markersize=6, label=label)
    _class_axis(axes, ranks, many)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("recall", fontsize=10.5)
    handles, labels = axes.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)), frameon=False, fontsize=9.5)
    return svg(made, name, _alt(drawn, ranks, first_rare))


def _class_axis(axes: Any, ranks: Ranks, many: bool) -> None:
    axes.set_xlim(-0.6, len(ranks) - 0.4)
    every = max(1, math.ceil(len(ranks) / _NAMED))
    at = list(range(0, len(ranks), every))
    names = [shorten(" ".join(ranks.names[i].split()), 18) for i in at]
    slant = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) * len(at) > 75 else {}
    form = "{} ({:,})" if slant else "{}\n{:,}"
    axes.set_xticks(
        at, [form.format(n, ranks.train[i]) for n, i in zip(names, at, strict=True)], **slant
    )
    axes.set_xlabel(
        "class and its training rows, head to tail (tinted: minority)", fontsize=10.5
    )


def _alt(drawn: Sequence[Row], ranks: Ranks, rare: Sequence[int]) -> str:
    parts = []
    for row in drawn:
        found = recalls(row, ranks)[:, list(rare)] if rare else np.empty(0)
        mean = float(np.nanmean(found)) if found.size and not np.isnan(found).all() else math.nan
        parts.append(f"{row.label} {mean:.2f}" if not math.isnan(mean) else row.label)
    return "recall per class from head to tail; mean over the minority: " + ", ".join(parts)
