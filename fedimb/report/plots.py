"""A picture that compares strategies."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedimb.report.groups import QUALITIES, Group, RunRow, group_rows
from fedimb.rundir.partition_picture import ALL, FAINT, INK, RARE, checked_path, clean_axes, new_figure, save_figure
from fedimb.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL = 44


def _bars(axes: "Axes", groups: list[Group], metric: str, offset: float, colour: str) -> None:
    for at, group in enumerate(groups):
        mean, low, high = group.interval(metric)
        if math.isnan(mean):
            axes.text(0.01, at + offset, "no result", va="center", fontsize=8, color=FAINT)
            continue
        axes.barh(at + offset, mean, height=0.36, color=colour)
        end = mean
        if not math.isnan(high):
            # Drawn within the axis; the table has the full interval.
            low, high = max(low, 0.0), min(high, 1.0)
            axes.plot([low, high], [at + offset] * 2, color=INK, linewidth=1.3, solid_capstyle="butt")
            axes.plot([low, high], [at + offset] * 2, "|", color=INK, markersize=5)
            end = max(mean, high)
        axes.text(end + 0.012, at + offset, f"{mean:.2f}", va="center", fontsize=8, color=INK)


def _folded(label: str) -> str:
    """A long label on two lines, broken at a ``+``: shortened labels could look the same."""
    label = " ".join(label.split())
    cut = label.rfind("+", 0, _LABEL) if len(label) > _LABEL else 0
    if cut <= 0:
        return shorten(label, _LABEL)
    return f"{label[:cut]}\n{shorten(label[cut:], _LABEL)}"


def comparison_figure(rows: Sequence[RunRow], path: str | Path) -> Path:
    """Horizontal bars of minority and macro recall per label, with the 95 % t interval over seeds.

    Labels keep the order of first appearance, top to bottom; failed and diverged runs are noted.

    Args:
        rows: as for `fedimb.report.table.comparison_table`.
        path: file to write, ``.png`` or ``.svg``; its folders are created.

    Returns:
        the path.

    Raises:
        ConfigError: another suffix, or matplotlib is not installed.
        ValueError: no rows, or see `group_rows`.
    """
    path = checked_path(path)
    groups = group_rows(rows)
    if not groups:
        raise ValueError("no runs to draw")
    figure = new_figure(8.5, 1.3 + 0.52 * len(groups))
    axes = figure.add_subplot()
    _bars(axes, groups, "minority_recall", -0.19, RARE)
    _bars(axes, groups, "macro_recall", 0.19, ALL)
    labels = []
    for group in groups:
        seeds = f"{group.runs} seed{'s' * (group.runs != 1)}"
        if not group.complete:
            seeds = f"{len(group.finished)} of {seeds} finished"
        labels.append(f"{_folded(group.label)}\n{seeds}")
    axes.set_yticks(range(len(groups)), labels)
    axes.set_ylim(len(groups) - 0.45, -0.55)
    axes.set_xlim(0, 1.0)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    spread = any(len(group.finished) > 1 for group in groups)
    note = "black: 95 % t interval over seeds" if spread else "one seed: no interval"
    axes.set_xlabel(f"recall on the test set ({note})", fontsize=9)
    clean_axes(axes, "top", "right", "left")
    from matplotlib.patches import Patch

    handles = [
        Patch(color=RARE, label=QUALITIES["minority_recall"]),
        Patch(color=ALL, label=QUALITIES["macro_recall"]),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return save_figure(figure, path)
