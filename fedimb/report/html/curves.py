"""Learning curves of a setting, and what the minority recall cost: pictures of a few rows, the others in grey."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedimb.evaluation.intervals import t_interval
from fedimb.report.html.numbers import HEADLINE, Row, heading, ranked
from fedimb.report.html.pictures import COLOURS, CONTROL, FAINT, INK, MARKERS, figure, svg, tidy
from fedimb.report.text import shorten
from fedimb.study.results import COLUMNS

MOST_POINTS = 50
CURVES = ("minority_recall", "macro_recall")
_SIZE = (5.6, 3.7)  # inches: letters stay readable when a phone shrinks it to 360 px


def chosen(rows: Sequence[Row], most: int = len(COLOURS)) -> list[Row]:
    """Rows drawn in colour: the control, then those with the best minority recall, in the study's order."""
    order = [row for row in ranked(list(rows)) if not row.control]
    order += [row for row in rows if row not in order and not row.control and row.finished]
    kept = [row for row in rows if row.control and row.finished] + order[:most]
    return sorted(kept, key=lambda row: row.number)


def style(row: Row, drawn: Sequence[Row]) -> dict[str, Any]:
    """Colour, line and marker of a row among those drawn; the control is dark and dashed."""
    if row.control:
        return {"color": CONTROL, "linestyle": "--", "marker": "x"}
    at = [other.number for other in drawn if not other.control].index(row.number) % len(COLOURS)
    return {"color": COLOURS[at], "linestyle": "-", "marker": MARKERS[at]}


def points(row: Row, name: str) -> list[tuple[int, float, float, float]]:
    """(round, mean, low, high) over the finished runs, of rounds that all of them scored; at most `MOST_POINTS`."""
    runs = [{at: scores.get(name, math.nan) for at, scores in r.curve} for r in row.finished if r.curve]
    if not runs or len(runs) < len(row.finished):
        return []
    rounds = sorted(set.intersection(*(set(run) for run in runs)))
    keep = np.unique(np.linspace(0, len(rounds) - 1, min(len(rounds), MOST_POINTS)).astype(int)) if rounds else []
    found = []
    for at in (rounds[i] for i in keep):
        mean, low, high = t_interval([run[at] for run in runs])
        if not math.isnan(mean):
            found.append((at, mean, low, high))
    return found


def curve_svg(rows: Sequence[Row], score: str, name: str) -> str:
    """A score by round with the t band over seeds; empty when no row was scored in two rounds or more."""
    paths = {row.number: found for row in rows if len(found := points(row, score)) > 1}
    if not paths:
        return ""
    drawn = [row for row in chosen(rows) if row.number in paths]
    made = figure(*_SIZE)
    axes = made.add_subplot()
    tidy(axes)
    coloured = {row.number for row in drawn}
    for number, found in paths.items():
        if number not in coloured:
            axes.plot([p[0] for p in found], [p[1] for p in found], color=FAINT, linewidth=0.9)
    for row in drawn:
        at, mean, low, high = (np.array(values) for values in zip(*paths[row.number], strict=True))
        look = style(row, drawn)
        if not np.isnan(low).all():
            axes.fill_between(at, np.clip(low, 0, 1), np.clip(high, 0, 1), color=look["color"], alpha=0.13, linewidth=0)
        axes.plot(at, mean, **look, markevery=max(1, len(at) // 6), markersize=5, linewidth=1.7, label=_label(row))
    _legend(axes, bool(len(paths) > len(drawn)))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("round", fontsize=10.5)
    axes.set_ylabel(COLUMNS[score], fontsize=10.5)
    best = ", ".join(f"{row.label} ends at {paths[row.number][-1][1]:.2f}" for row in drawn)
    return svg(made, name, f"{COLUMNS[score]} by round: {best}")


def cost_svg(rows: Sequence[Row], cost: str, name: str) -> str:
    """Minority recall against a cost, a point per row with its interval; empty when fewer than two rows have both.

    Args:
        rows: of a setting.
        cost: ``bytes`` (up and down together), ``labels`` or ``client_seconds``.
        name: of the picture.
    """
    found = []
    for row in rows:
        spent = cost_of(row, cost)
        mean = row.mean(HEADLINE)
        if not (math.isnan(spent) or math.isnan(mean.value)):
            found.append((row, spent, mean))
    if len(found) < 2:
        return ""
    drawn = [row for row in chosen(rows) if any(row is one for one, _, _ in found)]
    made = figure(*_SIZE)
    axes = made.add_subplot()
    tidy(axes)
    coloured = {row.number for row in drawn}
    for row, spent, mean in found:
        look = style(row, drawn) if row.number in coloured else {"color": FAINT, "marker": "."}
        half = 0.0 if math.isnan(mean.half) else mean.half
        ends = [max(0.0, mean.value - half), min(1.0, mean.value + half)]
        axes.plot([spent, spent], ends, color=look["color"], linewidth=1.2)
        label = _label(row) if row.number in coloured else None
        axes.plot([spent], [mean.value], color=look["color"], marker=look["marker"], markersize=7, ls="", label=label)
    _number(axes, found)
    _scale(axes, [spent for _, spent, _ in found])
    _legend(axes, len(found) > len(drawn))
    axes.set_ylim(-0.02, 1.06)
    axes.set_xlabel(_WORDS[cost], fontsize=10.5)
    axes.set_ylabel(COLUMNS[HEADLINE], fontsize=10.5)
    alt = ", ".join(f"{row.label} {mean.value:.2f} at {spent:.3g}" for row, spent, mean in found)
    return svg(made, name, f"minority recall against {_WORDS[cost]}: {alt}")


_WORDS = {"bytes": "MB up and down", "labels": heading("labels"), "client_seconds": heading("client_seconds")}


def cost_of(row: Row, cost: str) -> float:
    """A row's mean cost in the unit of its axis; NaN where it is not known."""
    if cost == "bytes":
        return (row.mean("up_bytes").value + row.mean("down_bytes").value) / 1e6
    return row.mean(cost).value


def _number(axes: Any, found: list[tuple[Row, float, Any]]) -> None:
    """Rows' numbers beside their points; those at about the same place step aside in turn."""
    spots: list[tuple[float, float]] = []
    for row, spent, mean in sorted(found, key=lambda one: (one[2].value, one[0].number)):
        near = sum(abs(y - mean.value) < 0.05 and 0.8 <= (x + 1e-9) / (spent + 1e-9) <= 1.25 for x, y in spots)
        axes.annotate(
            str(row.number),
            (spent, mean.value),
            xytext=(7 + 13 * near, -4),
            textcoords="offset points",
            fontsize=9.5,
            color=INK,
        )
        spots.append((spent, mean.value))


def _scale(axes: Any, spent: list[float]) -> None:
    positive = [value for value in spent if value > 0]
    if positive and max(positive) > 20 * min(positive):
        axes.set_xscale("symlog", linthresh=min(positive))
    elif max(spent) > 0:
        axes.set_xlim(-0.04 * max(spent), 1.18 * max(spent))


def _label(row: Row) -> str:
    return f"{row.number} {shorten(' '.join(row.label.split()), 30)}"


def _legend(axes: Any, others: bool) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if others:
        from matplotlib.lines import Line2D

        handles, labels = [*handles, Line2D([], [], color=FAINT)], [*labels, "other rows"]
    columns = 2 if max(map(len, labels)) < 26 else 1
    axes.figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9.5)
