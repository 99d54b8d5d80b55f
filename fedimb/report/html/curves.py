"""Pictures of a setting: learning curves, and minority recall against cost; a few rows in colour, the others grey."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedimb.evaluation.intervals import t_interval
from fedimb.report.html.legend import Entry
from fedimb.report.html.numbers import HEADLINE, Mean, Row, heading
from fedimb.report.html.pictures import FAINT, INK, figure, svg, tidy
from fedimb.study.results import COLUMNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 21
CURVES = ("minority_recall", "macro_recall")
_SIZE = (5.6, 3.1)  # inches: text stays readable when a phone shrinks it to 360 px


def points(row: Row, name: str) -> list[tuple[int, float, float, float]]:
    """(round, mean, low, high) over the finished runs, for rounds scored in all of them; at most `MOST_POINTS`."""
    runs = [{at: scores.get(name, math.nan) for at, scores in r.curve} for r in row.finished if r.curve]
    if not runs or len(runs) < len(row.finished):
        return []
    rounds = sorted(set.intersection(*(set(run) for run in runs)))
    found = []
    for at in _thinned(rounds):
        mean, low, high = t_interval([run[at] for run in runs])
        if not math.isnan(mean):
            found.append((at, mean, low, high))
    return found


def _thinned(rounds: list[int]) -> list[int]:
    """Select evenly, including the first and the last."""
    count = min(len(rounds), MOST_POINTS)
    return [rounds[round(i * (len(rounds) - 1) / max(1, count - 1))] for i in range(count)]


def curve_svg(rows: Sequence[Row], key: Sequence[Entry], score: str, name: str) -> str:
    """A score by round with the t band over seeds; rows without their own colour in grey.

    Args:
        rows: of a setting.
        key: how rows are drawn.
        score: name of a score of the curves.
        name: of the picture, unique on the page.

    Returns:
        the picture; empty when no row was scored in two rounds or more.
    """
    paths = {row.number: found for row in rows if len(found := points(row, score)) > 1}
    if not paths:
        return ""
    axes = _axes("round", COLUMNS[score])
    drawn = [entry for entry in key if entry.row.number in paths]
    for number in paths.keys() - {entry.row.number for entry in drawn}:
        axes.plot([p[0] for p in paths[number]], [p[1] for p in paths[number]], color=FAINT, linewidth=0.9)
    for entry in drawn:
        at, mean, low, high = (np.array(values) for values in zip(*paths[entry.row.number], strict=True))
        if not np.isnan(low).all():
            axes.fill_between(at, np.clip(low, 0, 1), np.clip(high, 0, 1), color=entry.colour, alpha=0.13, linewidth=0)
        axes.plot(at, mean, **entry.line, markevery=max(1, len(at) // 4), markersize=5, linewidth=1.7)
    ends = ", ".join(f"{entry.row.label} ends at {paths[entry.row.number][-1][1]:.2f}" for entry in drawn)
    return svg(axes.figure, name, f"{COLUMNS[score]} by round: {ends}")


def cost_svg(rows: Sequence[Row], key: Sequence[Entry], cost: str, name: str, bar: Row | None = None) -> str:
    """Minority recall against a cost: a numbered point per row with its t interval over seeds; free rows are hollow.

    Args:
        rows: of a setting.
        key: how rows are drawn.
        cost: ``bytes`` (up and down together), ``labels`` or ``client_seconds``.
        name: of the picture, unique on the page.
        bar: the free row that is the bar of the setting; a dotted line is at its recall.

    Returns:
        the picture; empty when fewer than two rows have both figures.
    """
    found = [(row, cost_of(row, cost), row.mean(HEADLINE)) for row in rows]
    found = [(row, spent, mean) for row, spent, mean in found if not math.isnan(spent + mean.value)]
    if len(found) < 2:
        return ""
    axes = _axes(_WORDS[cost], COLUMNS[HEADLINE])
    looks = {entry.row.number: entry for entry in key}
    for row, spent, mean in found:
        look = looks.get(row.number)
        colour, marker = (look.colour, look.marker) if look else (FAINT, "o")
        half = 0.0 if math.isnan(mean.half) else mean.half
        axes.plot([spent, spent], [max(0, mean.value - half), min(1, mean.value + half)], color=colour, linewidth=1.2)
        inside = "white" if row.free else colour
        axes.plot(
            [spent], [mean.value], color=colour, marker=marker, markerfacecolor=inside, markersize=7, linestyle=""
        )
    if bar is not None and not math.isnan(level := bar.mean(HEADLINE).value):
        axes.axhline(level, color=INK, linewidth=0.9, linestyle=":")
    _number(axes, found)
    _scale(axes, [spent for _, spent, _ in found])
    alt = ", ".join(f"{row.label}{' (free)' * row.free} {mean.value:.2f} at {spent:.3g}" for row, spent, mean in found)
    return svg(axes.figure, name, f"minority recall against {_WORDS[cost]}: {alt}")


def _axes(across: str, up: str) -> "Axes":
    axes = figure(*_SIZE).add_subplot()
    tidy(axes)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_xlabel(across, fontsize=10.5)
    axes.set_ylabel(up, fontsize=10.5)
    return axes


_WORDS = {"bytes": "MB up and down", "labels": heading("labels"), "client_seconds": heading("client_seconds")}


def cost_of(row: Row, cost: str) -> float:
    """A row's mean cost in the unit of its axis; NaN if unknown."""
    if cost == "bytes":
        return (row.mean("up_bytes").value + row.mean("down_bytes").value) / 1e6
    return row.mean(cost).value


def _number(axes: "Axes", found: list[tuple[Row, float, Mean]]) -> None:
    """Rows' numbers next to their points; overlapping ones are shifted."""
    wide = 0.05 * max(spent for _, spent, _ in found)
    spots: list[tuple[float, float]] = []
    for row, spent, mean in sorted(found, key=lambda one: (one[2].value, one[0].number)):
        near = sum(abs(y - mean.value) < 0.06 and abs(x - spent) <= wide for x, y in spots)
        at, place = (spent, mean.value), (7 + 13 * near, -4)
        axes.annotate(str(row.number), at, place, textcoords="offset points", fontsize=9.5, color=INK)
        spots.append((spent, mean.value))


def _scale(axes: "Axes", spent: list[float]) -> None:
    positive = [value for value in spent if value > 0]
    if positive and max(positive) > 20 * min(positive):
        axes.set_xscale("symlog", linthresh=min(positive))
        axes.set_xlim(-0.3 * min(positive) if min(spent) <= 0 else 0.7 * min(positive), 2 * max(positive))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # powers would be formulas, which `svg` turns off
    elif max(spent) > 0:
        axes.set_xlim(-0.04 * max(spent), 1.18 * max(spent))
