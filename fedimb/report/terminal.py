"""Pictures in the terminal: who holds what as shades, learning curves as one line per row. Drawn with rich.

Rich is there already (Flower needs it). It has no charts of lines, but more than three lines in one chart of 80 x 20
characters cannot be told apart without colour, whereas a study has a dozen rows and its log has no colour.
"""

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import NDArray

from fedimb.report.html.classes import columns, head_to_tail
from fedimb.report.html.curves import CURVES, points
from fedimb.report.html.numbers import Row, rows_of
from fedimb.study.results import COLUMNS, StudyResults
from fedimb.text import WIDTH, plain, shorten, width, writable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ROWS, _COLUMNS, _PLACES = 24, 16, 12  # most lines, classes, and places where neighbours share a column
_FIRST, _LABEL = 24, 22  # columns of text, at most
_END = 13  # columns of "0.000 ± 0.000"
_SHADES, _STEPS = ("░▒▓█", "▁▂▃▄▅▆▇█")
_PLAIN_SHADES, _PLAIN_STEPS = (".:*#", "01234567")


def draw_study(study: StudyResults, stream: TextIO | None = None) -> None:
    """Draw who holds what and the learning curves of every setting that has a finished run.

    Args:
        study: its results.
        stream: where to write; default: standard output. In a file or a pipe there are no colours, and where the
            encoding lacks blocks other characters stand for them.
    """
    stream = sys.stdout if stream is None else stream
    console = _console(stream)
    for name, setting in study.settings.items():
        rows = [row for row in rows_of(study, name) if row.finished]
        if not rows:
            continue
        if len(study.settings) > 1:
            console.print(f"\n{plain(name, stream)}", style="bold", markup=False, highlight=False)
        if setting.counts is None:
            console.print("\nThe sites count their own rows: who holds what is not known here.")
        else:
            draw_partition(setting.counts, setting.class_names, setting.minority, stream)
        draw_curves(rows, stream)


def draw_partition(
    counts: NDArray[np.int64], class_names: Sequence[str], minority: Sequence[int], stream: TextIO | None = None
) -> None:
    """Training rows of each client and class as shades, classes from head to tail, on a log scale.

    Neighbouring clients are put together beyond 24, neighbouring classes beyond 16: then the first
    of them stands at the line or column, and the heading says so.

    Args:
        counts: [K, C] >= 0.
        class_names: C names; ``minority``: class ids.
        stream: as `draw_study`.
    """
    stream = sys.stdout if stream is None else stream
    console, held = _console(stream), np.asarray(counts)
    order = head_to_tail(held.sum(axis=0))
    together = math.ceil(len(held) / _ROWS)
    parts = columns(len(order), _COLUMNS if len(order) <= _COLUMNS else _PLACES)
    shown = np.add.reduceat(held, np.arange(0, len(held), together), axis=0)
    shown = np.stack([shown[:, order[part]].sum(axis=1) for part in parts], axis=1)
    rare = [bool(set(order[part].tolist()) & set(minority)) for part in parts]
    what, names = _headings(class_names, order, parts, rare, console.width, stream)
    table = _table((f"{together} clients" if together > 1 else "client") + what, 1)
    for name, is_rare in zip(names, rare, strict=True):
        table.add_column(name, justify="right", style="red" if is_rare else "cyan", no_wrap=True)
    most = int(shown.max())
    for at, line in enumerate(shown.tolist()):
        table.add_row(str(at * together), *(_shade(n, most, stream) * (3 if n else 1) for n in line))
    console.print("\nwho holds what: training rows, head to tail", highlight=False)
    console.print(table)
    console.print(_scale(most, stream), style="dim", markup=False, highlight=False)


def _headings(
    class_names: Sequence[str],
    order: NDArray[np.int64],
    parts: Sequence[NDArray[np.int64]],
    rare: Sequence[bool],
    room: int,
    stream: TextIO,
) -> tuple[str, list[str]]:
    """What the headings are, and one per column: class names, their ids if names do not fit, else the first
    of its places by size."""
    marks = ["<" * is_rare for is_rare in rare]
    if len(parts) < len(order):
        return " \\ from place", [f"{part[0] + 1}{mark}" for part, mark in zip(parts, marks, strict=True)]
    named = [plain(class_names[c], stream) + mark for c, mark in zip(order, marks, strict=True)]
    if sum(max(3, width(name)) + 1 for name in named) + _FIRST <= room:
        return " \\ class", named
    return " \\ class id", [f"{c}{mark}" for c, mark in zip(order, marks, strict=True)]


def _shade(n: int, most: int, stream: TextIO) -> str:
    if not n:
        return "-"
    return _marks(_SHADES, _PLAIN_SHADES, stream)[min(3, int(4 * math.log(n) / math.log(max(2, most))))]


def _scale(most: int, stream: TextIO) -> str:
    """Which counts each shade stands for."""
    texts = []
    for mark in dict.fromkeys(_shade(n, most, stream) for n in _thresholds(most)):
        of = [n for n in _thresholds(most) if _shade(n, most, stream) == mark]
        texts.append(f"{mark * 3} from {min(of):,}")
    return ", ".join([*texts, f"up to {most:,}; -: none; <: minority"])


def _thresholds(most: int) -> list[int]:
    """The counts at which a shade may begin: around the fourth roots of the largest, where rounding decides."""
    roots = [most ** (step / 4) for step in range(4)]
    return sorted({n for root in roots for n in (math.floor(root), math.ceil(root)) if 1 <= n <= most})


def draw_curves(rows: Sequence[Row], stream: TextIO | None = None) -> None:
    """Minority and macro recall of each row by round, the mean over seeds, as blocks from 0 to 1, and where it ends.

    Args:
        rows: of one setting, with finished runs.
        stream: as `draw_study`.
    """
    stream = sys.stdout if stream is None else stream
    console = _console(stream)
    found = {row.number: {score: points(row, score) for score in CURVES} for row in rows}
    rounds = [at for paths in found.values() for path in paths.values() for at, *_ in path]
    if not rounds:
        return
    labels = {row.number: _label(row, stream) for row in rows}
    gaps = 2 * (1 + 2 * len(CURVES))
    each = (console.width - max(map(width, labels.values())) - gaps) // len(CURVES) - _END
    table = _table("row", 2)
    for score in CURVES:
        table.add_column(COLUMNS[score], style="red" if score == CURVES[0] else "cyan", no_wrap=True)
        table.add_column("ends at", justify="right", no_wrap=True)
    for row in rows:
        cells: list[str] = []
        for score in CURVES:
            path = found[row.number][score]
            means = [mean for _, mean, *_ in path]
            cells += [sparkline(_thinned(means, each), stream), _end(path, stream)]
        table.add_row(labels[row.number], *cells)
    said = (
        f"learning curves: rounds {min(rounds)} to {max(rounds)}, from 0 to 1; at the end the 95 % interval over seeds"
    )
    console.print(f"\n{said}", highlight=False)
    console.print(table)


def _label(row: Row, stream: TextIO) -> str:
    """A row's number in the study, which tells shortened labels apart, and its label."""
    return shorten(f"{row.number} {plain(row.label, stream)}" + " (control)" * row.control, _LABEL)


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """Evenly chosen values with the first and the last, at least 4."""
    count = min(len(values), max(4, most))
    return [values[round(i * (len(values) - 1) / max(1, count - 1))] for i in range(count)]


def sparkline(values: Sequence[float], stream: TextIO | None = None) -> str:
    """A block per value in 0..1, eighths of its height; digits 0 to 7 where the stream cannot encode blocks.

    >>> import os
    >>> sparkline([0.0, 0.49, 0.5, 1.0], open(os.devnull, "w", encoding="utf-8"))
    '▁▄▅█'
    """
    marks = _marks(_STEPS, _PLAIN_STEPS, stream)
    return "".join(" " if math.isnan(v) else marks[min(7, max(0, int(8 * v)))] for v in values)


def _end(path: Sequence[tuple[int, float, float, float]], stream: TextIO) -> str:
    if not path:
        return "n/a"
    _, mean, _, high = path[-1]
    sign = "±" if writable("±", stream) else "+-"
    return f"{mean:.3f}" + ("" if math.isnan(high) else f" {sign} {high - mean:.3f}")


def _marks(marks: str, instead: str, stream: TextIO | None) -> str:
    return marks if writable(marks, stream) else instead


def _table(first: str, gap: int) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    table.add_column(first, no_wrap=True)
    return table


def _console(stream: TextIO) -> "Console":
    """A console as wide as the terminal; in a file or a pipe as wide as the other tables."""
    from rich.console import Console

    return Console(
        file=stream, width=None if stream.isatty() else WIDTH, emoji=False, markup=False, force_jupyter=False
    )
