"""Matrices as HTML tables of shaded cells: sharp on every screen and on paper, counts on hover, few bytes.

Shade is a class ``h0`` .. ``h9`` of the style sheet; blank is none, so that one row in a thousand is seen.
"""

import base64
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.exposure import exposure
from fedimb.evaluation.intervals import t_interval, wilson
from fedimb.report.html.classes import Ranks, columns, head_to_tail, matrix, recalls
from fedimb.report.html.numbers import Row
from fedimb.rundir.partition_picture import partition_figure
from fedimb.study.results import Setting
from fedimb.text import shorten

MOST_CELLS = 600
_NAME = 14


@dataclass(frozen=True)
class Heat:
    """A shaded table.

    Attributes:
        corner: text of the top-left cell.
        head: heading per column, and whether it belongs to the minority.
        lines: per line its name and cells (CSS class of the shade or empty, text, text on hover).
        foot: further unshaded lines: name and texts.
    """

    corner: str
    head: Sequence[tuple[str, bool]]
    lines: Sequence[tuple[str, Sequence[tuple[str, str, str]]]]
    foot: Sequence[tuple[str, Sequence[str]]] = ()


def partition_heat(setting: Setting) -> Heat | None:
    """Clients x classes with exposure below; None if it is too large for a table or the counts are unknown."""
    counts = setting.counts
    if counts is None or counts.size > MOST_CELLS or counts.shape[1] > 20:
        return None
    order = head_to_tail(counts.sum(axis=0))
    held, most = counts[:, order], max(2, int(counts.max()))
    lines = []
    for k, own in enumerate(held):
        cells = [(shade(math.log(n) / math.log(most)) if n else "", f"{n:,}" if n else "", "") for n in own.tolist()]
        lines.append((str(k), cells))
    return Heat("client", _head(setting, order), lines, exposure_lines(counts, order))


def exposure_lines(counts: NDArray[np.int64], order: NDArray[np.int64]) -> list[tuple[str, list[str]]]:
    """Total rows, holders, effective holders and the largest holder's share of each class, in ``order``."""
    facts = exposure(counts)

    def texts(values: NDArray[np.float64], form: str) -> list[str]:
        return ["n/a" if math.isnan(v) else format(v, form) for v in values[order].tolist()]

    return [
        ("all", [f"{n:,}" for n in counts.sum(axis=0)[order].tolist()]),
        ("holders", [str(n) for n in facts["holders"][order].tolist()]),
        ("effective holders", texts(facts["n_eff"], ".1f")),
        ("largest holder", texts(facts["top1_mass"], ".0%")),
    ]


def partition_png(setting: Setting) -> str:
    """The same as a picture, for many clients or classes: a ``data:`` URL; empty if the counts are unknown."""
    if setting.counts is None:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        path = partition_figure(setting.counts, setting.class_names, setting.minority, Path(folder, "partition.png"))
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def recall_heat(rows: Sequence[Row], ranks: Ranks) -> Heat:
    """Rows x classes from head to tail: recall, the interval on hover (t over seeds, Wilson's with one)."""
    parts = columns(len(ranks))
    lines = []
    for row in rows:
        found = recalls(row, ranks)
        if len(found):
            lines.append((f"{row.number} {row.label}", [_recall(row, ranks, found, part) for part in parts]))
    head = [(_span(ranks, part), any(ranks.rare[i] for i in part)) for part in parts]
    train = [f"{sum(ranks.train[i] for i in part) / len(part):,.0f}" for part in parts]
    return Heat("row", head, lines, [("training rows" if len(parts) == len(ranks) else "training rows, mean", train)])


def recall_interval(row: Row, ranks: Ranks, place: int) -> tuple[float, float, float]:
    """(recall, low, high) of a rank: t interval over seeds; for a single run Wilson's, over its test rows."""
    found = recalls(row, ranks)
    if len(found) != 1:
        return t_interval(found[:, place].tolist())
    cells = matrix(row, ranks)
    if cells is None:
        return float(found[0, place]), math.nan, math.nan
    hits, support = (
        (cells[place, 1, 1], cells[place, 1].sum())
        if cells.ndim == 3
        else (
            cells[place, place],
            cells[place].sum(),
        )
    )
    low, high = wilson(hits, support)
    return float(found[0, place]), float(low), float(high)


def confusion_heat(row: Row, ranks: Ranks) -> Heat | None:
    """Row-normalised confusion matrix over all finished runs, in per cent; None without one or too large.

    Where rows have several labels: found, missed and false alarms of each class.
    """
    cells = matrix(row, ranks)
    if cells is None:
        return None
    if cells.ndim == 3:
        return _several(cells, ranks)
    if len(ranks) > 20:
        return None
    lines = []
    for place, own in enumerate(cells.tolist()):
        total = sum(own)
        shown = []
        for n in own:
            share = n / total if total else 0.0
            shown.append((shade(share) if n else "", f"{100 * share:.0f}" if n else "", _count(n) * (n > 0)))
        lines.append((_short(ranks.names[place]), shown))
    head = [(_short(name), rare) for name, rare in zip(ranks.names, ranks.rare, strict=True)]
    return Heat("true \\ predicted", head, lines)


def confusion_png(row: Row, ranks: Ranks) -> str:
    """A large confusion matrix as a picture with one dot per cell, a ``data:`` URL; empty if there is none."""
    import io

    from matplotlib.image import imsave

    cells = matrix(row, ranks)
    if cells is None or cells.ndim == 3:
        return ""
    totals = cells.sum(axis=1, keepdims=True)
    share = np.divide(cells, totals, out=np.zeros(cells.shape), where=totals > 0)
    buffer = io.BytesIO()
    imsave(buffer, np.sqrt(share), cmap="Blues", vmin=0, vmax=1, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def shade(share: float) -> str:
    """CSS class of the shade for a share in 0..1."""
    return f"h{min(9, max(0, int(share * 10)))}"


def _count(rows: float) -> str:
    """Rows; of a mean over several models with one decimal."""
    return f"{rows:,.1f}".removesuffix(".0")


def _several(cells: NDArray[Any], ranks: Ranks) -> Heat:
    lines = []
    for place, ((_, alarms), (missed, found)) in enumerate(cells.tolist()):
        total = found + missed
        share = found / total if total else math.nan
        text = "n/a" if math.isnan(share) else f"{100 * share:.0f}"
        line = [("" if math.isnan(share) else shade(share), text, f"{_count(found)} of {_count(total)}")]
        lines.append((_short(ranks.names[place]), [*line, ("", _count(missed), ""), ("", _count(alarms), "")]))
    return Heat("class", [("found, %", False), ("missed", False), ("false alarms", False)], lines)


def _recall(row: Row, ranks: Ranks, found: NDArray[np.float64], part: NDArray[np.int64]) -> tuple[str, str, str]:
    if len(part) > 1:
        values = found[:, part]
        if np.isnan(values).all():
            return "", "n/a", ""
        mean = float(np.nanmean(values))
        return shade(mean), f"{100 * mean:.0f}", f"mean of {len(part)} classes"
    mean, low, high = recall_interval(row, ranks, int(part[0]))
    if math.isnan(mean):
        return "", "n/a", ""
    return shade(mean), f"{100 * mean:.0f}", "" if math.isnan(low) else f"{100 * low:.0f} to {100 * high:.0f}"


def _head(setting: Setting, order: NDArray[np.int64]) -> list[tuple[str, bool]]:
    return [(_short(setting.class_names[c]), int(c) in set(setting.minority)) for c in order]


def _span(ranks: Ranks, part: NDArray[np.int64]) -> str:
    return _short(ranks.names[part[0]]) if len(part) == 1 else f"{part[0] + 1}-{part[-1] + 1}"


def _short(name: str) -> str:
    return shorten(" ".join(name.split()), _NAME)
