"""Plot of a partition: which client holds which class. It is in every run folder and in reports.

matplotlib is loaded when a plot is drawn, without pyplot: no window, no global state, safe in any thread.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fedimb.errors import ConfigError
from fedimb.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

RARE, ALL, INK, FAINT = "#c8501e", "#4a7fa7", "#222222", "#9a9a9a"  # distinguishable without colour vision
_ANNOTATE_UP_TO = 200
_TICKS_UP_TO = 40
_ROWS_UP_TO = 250


def new_figure(width: float, height: float) -> "Figure":
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


def checked_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"cannot draw '{path}': give a name ending in .png or .svg")
    return path


def save_figure(figure: Any, path: Path) -> Path:
    from matplotlib import rc_context

    for text in figure.findobj(lambda part: hasattr(part, "set_parse_math")):
        text.set_parse_math(False)  # a $ in a class or label name is not a formula
    path.parent.mkdir(parents=True, exist_ok=True)
    # Tall plots (many labels) should still fit into an email: lower resolution, text instead of outlines.
    tall = figure.get_figheight() > 12
    # Same figure, same bytes: no date, no random ids.
    with rc_context({"svg.hashsalt": "fedimb", "svg.fonttype": "none" if tall else "path"}):
        if path.suffix == ".svg":
            figure.savefig(path, metadata={"Date": None})
        else:
            figure.set_dpi(65 if tall else 110)
            figure.canvas.print_png(path)  # the same pixels as by savefig, which draws twice
    return path


def clean_axes(axes: "Axes", *sides: str) -> None:
    for side in sides:
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, colors=INK, labelsize=8.5)


def _every(n: int) -> list[int]:
    """Positions to label: all, or every k-th if there are too many to read."""
    return list(range(0, n, max(1, math.ceil(n / _TICKS_UP_TO))))


def _colour_bar(figure: "Figure", axes: "Axes", image: "AxesImage", most: int) -> None:
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
    """Heat map of clients by classes, classes from head to tail, colour on a log scale.

    A cell without samples is white, so that missing classes stand out. Up to 200 cells show their number. With more
    than 250 clients, clients with neighbouring ids are summed into one row, and the axis says how many.

    Args:
        counts: training samples, integers [K, C].
        class_names: C names by class id.
        minority: class ids of the minority classes; their names are coloured.
        path: where to write, ``.png`` or ``.svg``; folders are created.

    Returns:
        the path.

    Raises:
        ConfigError: another suffix, or matplotlib is not installed.
        ValueError: counts are not [K, C] with C names, or are negative or empty.
    """
    path = checked_path(path)
    held = np.asarray(counts)
    if held.ndim != 2 or held.size == 0 or held.shape[1] != len(class_names) or (held < 0).any():
        raise ValueError(f"counts must be at least 0, of shape [clients, {len(class_names)} classes]; got {held.shape}")
    totals = held.sum(0)
    order = np.lexsort((np.arange(held.shape[1]), -totals)).tolist()
    together = math.ceil(len(held) / _ROWS_UP_TO)
    held = np.add.reduceat(held, np.arange(0, len(held), together), axis=0)[:, order]
    n_rows, n_classes = held.shape
    width = min(10.0, max(5.5, 2.2 + 0.55 * n_classes))
    figure = new_figure(width, min(7.5, max(3.2, 1.9 + 0.32 * n_rows)))
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    # The scale starts at a blue that is clearly not white, so that one sample differs from none.
    scale = LinearSegmentedColormap.from_list("held", ["#cfe0ef", "#5b9bc9", "#08306b"])
    blues = scale.with_extremes(bad="white")
    axes = figure.add_subplot()
    most = max(2, int(held.max()))
    norm = LogNorm(1, most)
    image = axes.imshow(np.ma.masked_equal(held, 0), cmap=blues, norm=norm, aspect="auto", interpolation="nearest")
    clean_axes(axes)
    if held.size <= _ANNOTATE_UP_TO:
        for (row, column), value in np.ndenumerate(held):
            if value:
                colour = "white" if norm(value) > 0.5 else INK
                text = axes.text(column, row, f"{value:,}", ha="center", va="center", fontsize=7.5, color=colour)
                text.set_in_layout(False)  # it lies within the axes: measuring each would take half of the time
    if n_rows <= _TICKS_UP_TO and n_classes <= _TICKS_UP_TO:
        axes.vlines(np.arange(1, n_classes) - 0.5, -0.5, n_rows - 0.5, color="#e4e4e4", linewidth=0.6)
        axes.hlines(np.arange(1, n_rows) - 0.5, -0.5, n_classes - 0.5, color="#e4e4e4", linewidth=0.6)
    names = [shorten(" ".join(str(class_names[c]).split()), 18) for c in order]
    _class_axis(axes, names, totals[order].tolist(), [c in set(minority) for c in order], width - 1.6)
    axes.set_yticks(_every(n_rows), [str(row * together) for row in _every(n_rows)])
    axes.set_ylabel("client" if together == 1 else f"client (each row: {together} clients)", fontsize=9)
    _colour_bar(figure, axes, image, most)
    return save_figure(figure, path)
