"""Two pictures: how strategies compare, and who holds which class.

matplotlib is loaded when a picture is drawn, without pyplot: no window, no global state, safe in any thread.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedimb.errors import ConfigError
from fedimb.report.groups import QUALITIES, Group, RunRow, group_rows
from fedimb.report.text import shorten

RARE, ALL, INK, FAINT = "#c8501e", "#4a7fa7", "#222222", "#9a9a9a"  # told apart also without colour vision
_ANNOTATE_UP_TO = 200
_TICKS_UP_TO = 40
_ROWS_UP_TO = 250
_LABEL = 44


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'fedimb[sim]'") from None
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.09)  # inches
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"cannot draw '{path}': give a name ending in .png or .svg")
    return path


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import rc_context

    for text in figure.findobj(lambda part: hasattr(part, "set_parse_math")):
        text.set_parse_math(False)  # a class or label with a $ is a name, not a formula
    path.parent.mkdir(parents=True, exist_ok=True)
    # Tall pictures (many labels) must still go into a mail: fewer dots, letters instead of outlines.
    tall = figure.get_figheight() > 12
    # Same figure, same bytes: no date, no random ids.
    with rc_context({"svg.hashsalt": "fedimb", "svg.fonttype": "none" if tall else "path"}):
        if path.suffix == ".svg":
            figure.savefig(path, metadata={"Date": None})
        else:
            figure.savefig(path, dpi=65 if tall else 110)
    return path


def _clean(axes: Any, *sides: str) -> None:
    for side in sides:
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, colors=INK, labelsize=8.5)


def _bars(axes: Any, groups: list[Group], metric: str, offset: float, colour: str) -> None:
    for at, group in enumerate(groups):
        mean, low, high = group.interval(metric)
        if math.isnan(mean):
            axes.text(0.01, at + offset, "no result", va="center", fontsize=8, color=FAINT)
            continue
        axes.barh(at + offset, mean, height=0.36, color=colour)
        end = mean
        if not math.isnan(high):
            # Drawn within the axis; the table has the whole interval.
            low, high = max(low, 0.0), min(high, 1.0)
            axes.plot([low, high], [at + offset] * 2, color=INK, linewidth=1.3, solid_capstyle="butt")
            axes.plot([low, high], [at + offset] * 2, "|", color=INK, markersize=5)
            end = max(mean, high)
        axes.text(end + 0.012, at + offset, f"{mean:.2f}", va="center", fontsize=8, color=INK)


def _folded(label: str) -> str:
    """A long label on two lines, broken at a ``+``: labels cut short could look alike."""
    label = " ".join(label.split())
    cut = label.rfind("+", 0, _LABEL) if len(label) > _LABEL else 0
    if cut <= 0:
        return shorten(label, _LABEL)
    return f"{label[:cut]}\n{shorten(label[cut:], _LABEL)}"


def comparison_figure(rows: Sequence[RunRow], path: str | Path) -> Path:
    """Horizontal bars of minority and macro recall per label, with the 95 % t interval over seeds.

    Labels keep the order they are first seen in, top to bottom; one with failed or diverged runs says so.

    Args:
        rows: as for `fedimb.report.table.comparison_table`.
        path: where to write, ``.png`` or ``.svg``; folders are made.

    Returns:
        the path.

    Raises:
        ConfigError: another suffix, or matplotlib is not installed.
        ValueError: no rows, or see `group_rows`.
    """
    path = _checked(path)
    groups = group_rows(rows)
    if not groups:
        raise ValueError("no runs to draw")
    figure = _figure(8.5, 1.3 + 0.52 * len(groups))
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
    _clean(axes, "top", "right", "left")
    from matplotlib.patches import Patch

    handles = [
        Patch(color=RARE, label=QUALITIES["minority_recall"]),
        Patch(color=ALL, label=QUALITIES["macro_recall"]),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return _save(figure, path)


def _every(n: int) -> list[int]:
    """Positions to label: all, or every so many when there are too many to read."""
    return list(range(0, n, max(1, math.ceil(n / _TICKS_UP_TO))))


def _colour_bar(figure: Any, axes: Any, image: Any, most: int) -> None:
    steps = [step * 10**power for power in range(len(str(most))) for step in (1, 3)]
    ticks = [tick for tick in steps if tick <= most]
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=30)
    bar.minorticks_off()
    bar.set_ticks(ticks, labels=[f"{tick:,}" for tick in ticks], fontsize=8)
    bar.ax.tick_params(length=0)
    bar.set_label("training samples (white: none)", fontsize=9)
    bar.outline.set_visible(False)


def _class_axis(axes: Any, names: list[str], totals: list[int], rare: list[bool], inches: float) -> None:
    turned = (max(map(len, names)) + 1) * 0.075 > inches / len(names)
    form = "{} ({:,})" if turned else "{}\n{:,}"
    at = _every(len(names))
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    axes.set_xticks(at, [form.format(names[i], totals[i]) for i in at], **slant)
    for tick, i in zip(axes.get_xticklabels(), at, strict=True):
        if rare[i]:
            tick.set(color=RARE, fontweight="bold")
    axes.set_xlabel("class and total, head to tail (bold: minority)", fontsize=9)


def partition_figure(counts: ArrayLike, class_names: Sequence[str], minority: Sequence[int], path: str | Path) -> Path:
    """Heat map of who holds what: clients by classes, classes from head to tail, colour on a log scale.

    An empty cell is white: that a client lacks a class is the fact to see. Up to 200 cells carry their
    number. Above 250 clients, neighbours by id are summed into one row, and the axis says how many.

    Args:
        counts: training samples, integers [K, C].
        class_names: C names, by class id.
        minority: class ids of the minority classes, their names in colour.
        path: where to write, ``.png`` or ``.svg``; folders are made.

    Returns:
        the path.

    Raises:
        ConfigError: another suffix, or matplotlib is not installed.
        ValueError: counts are not [K, C] with C names, or negative, or there are none.
    """
    path = _checked(path)
    held = np.asarray(counts)
    if held.ndim != 2 or held.size == 0 or held.shape[1] != len(class_names) or (held < 0).any():
        raise ValueError(f"counts must be at least 0, of shape [clients, {len(class_names)} classes]; got {held.shape}")
    totals = held.sum(0)
    order = np.lexsort((np.arange(held.shape[1]), -totals)).tolist()
    together = math.ceil(len(held) / _ROWS_UP_TO)
    held = np.add.reduceat(held, np.arange(0, len(held), together), axis=0)[:, order]
    n_rows, n_classes = held.shape
    width = min(10.0, max(5.5, 2.2 + 0.55 * n_classes))
    figure = _figure(width, min(7.5, max(3.2, 1.9 + 0.32 * n_rows)))
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    # The scale starts at a blue that is clearly not white: one sample is not none.
    scale = LinearSegmentedColormap.from_list("held", ["#cfe0ef", "#5b9bc9", "#08306b"])
    blues = scale.with_extremes(bad="white")
    axes = figure.add_subplot()
    most = max(2, int(held.max()))
    norm = LogNorm(1, most)
    image = axes.imshow(np.ma.masked_equal(held, 0), cmap=blues, norm=norm, aspect="auto", interpolation="nearest")
    _clean(axes)
    if held.size <= _ANNOTATE_UP_TO:
        for (row, column), value in np.ndenumerate(held):
            if value:
                colour = "white" if norm(value) > 0.5 else INK
                axes.text(column, row, f"{value:,}", ha="center", va="center", fontsize=7.5, color=colour)
    if n_rows <= _TICKS_UP_TO and n_classes <= _TICKS_UP_TO:
        axes.vlines(np.arange(1, n_classes) - 0.5, -0.5, n_rows - 0.5, color="#e4e4e4", linewidth=0.6)
        axes.hlines(np.arange(1, n_rows) - 0.5, -0.5, n_classes - 0.5, color="#e4e4e4", linewidth=0.6)
    names = [shorten(" ".join(str(class_names[c]).split()), 18) for c in order]
    _class_axis(axes, names, totals[order].tolist(), [c in set(minority) for c in order], width - 1.6)
    axes.set_yticks(_every(n_rows), [str(row * together) for row in _every(n_rows)])
    axes.set_ylabel("client" if together == 1 else f"client (each row: {together} clients)", fontsize=9)
    _colour_bar(figure, axes, image, most)
    return _save(figure, path)
