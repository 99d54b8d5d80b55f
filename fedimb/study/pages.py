"""Pages of experiments whose figures are filled in from CSVs, so that none stands there that they do not bear out.

A page is ``page.md`` with words in braces, such as ``{mean lda macro_recall}``; `fill` asks the study's own object for
the figure of these words. What a sentence says in words stands behind it as a check, which prints nothing and refuses
the page if it is not so: ``{check: count below same_head = 7}``. A test fills the page again and compares it with the
``README.md`` that is kept.
"""

import csv
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fedimb.evaluation.intervals import t_interval
from fedimb.evaluation.verdict import verdict

Row = dict[str, str]
Line = dict[str, object]
BY_SEED = Mapping[int, float]
COMPARISONS: dict[str, Callable[[float, float], bool]] = {"<": operator.lt, ">": operator.gt, "=": operator.eq}


def read_rows(path: Path) -> list[Row]:
    """The lines of a CSV by column name."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_lines(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    """Lines as a CSV, numbers with six digits; the first line names the columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        for line in lines:
            writer.writerow({key: f"{v:.6g}" if isinstance(v, float | np.floating) else v for key, v in line.items()})


def merge_lines(path: Path, lines: Sequence[Mapping[str, object]], cell: Sequence[str]) -> None:
    """`write_lines`, beside the file's lines of other cells: those whose runs are elsewhere, or were not asked for.

    Args:
        path: CSV; need not be there.
        lines: made anew, with the columns of the file; they replace the file's lines of their cells.
        cell: columns that name a cell, as in ``("data_set", "setting")``. The file is sorted by them.

    Raises:
        ValueError: there are no lines, the columns differ, or a cell has fewer lines than the file had of it.
    """
    if not lines:
        raise ValueError(f"{path}: nothing was found that belongs into it")
    kept: list[Row] = read_rows(path) if path.exists() else []
    if kept and list(kept[0]) != list(lines[0]):
        raise ValueError(
            f"{path} has columns {', '.join(kept[0])}; now {', '.join(lines[0])}: remove it, make all cells"
        )
    new, old = (Counter(tuple(str(line[key]) for key in cell) for line in own) for own in (lines, kept))
    for name, count in new.items():
        if count < old[name]:
            raise ValueError(f"{path}: {count} lines of {'/'.join(name)} for {old[name]}: are all its runs there?")
    left = [line for line in kept if tuple(line[key] for key in cell) not in new]
    write_lines(path, sorted([*left, *lines], key=lambda line: tuple(str(line[key]) for key in cell)))


def short(value: float, digits: int = 3) -> str:
    """A figure without its leading zero.

    >>> short(0.885), short(-0.012), short(-0.0001)
    ('.885', '-.012', '.000')
    """
    text = re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}")
    return text.lstrip("-") if not float(text or 0) else text


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign.

    >>> signed(0.03), signed(-0.03)
    ('+.030', '-.030')
    """
    text = short(value, digits)
    return text if text.startswith("-") else f"+{text}"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    shown = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *shown])


def fill(text: str, figure: Callable[[str], str]) -> str:
    """The page: ``{words}`` replaced by the figure of these words.

    ``{check: FIRST = SECOND}`` (also ``<`` and ``>``) is replaced by nothing. A side is a figure's words or a number; a
    text behind ``=`` stands for itself. Figures are compared as they are printed.

    Raises:
        ValueError: a check that does not hold; and what ``figure`` raises for unknown words.
    """

    def shown(found: re.Match[str]) -> str:
        words = found[1]
        return _check(words.removeprefix("check:"), figure) if words.startswith("check:") else figure(words)

    return re.sub(r"\{([^{}]+)\}", shown, text)


def write_page(source: Path, folder: Path, figure: Callable[[str], str]) -> None:
    """Write ``source``, a ``page.md``, with its figures filled in, as ``README.md`` of a folder.

    Raises:
        ValueError: a check that does not hold; and what ``figure`` raises for unknown words.
    """
    page = fill(source.read_text(encoding="utf-8"), figure)
    (folder / "README.md").write_text(page, encoding="utf-8")


def contrasts_table(lines: Iterable[Mapping[str, str]]) -> str:
    """The lines of a study's ``contrasts.csv`` as a table: interval, both p values after Holm's correction, verdict."""
    shown = []
    for line in lines:
        p, equal = (short(float(line[key] or "nan")) for key in ("p_holm", "equal_holm"))
        shown.append([f"{line['first']} - {line['second']}", interval(line), p, equal, f"**{line['verdict']}**"])
    return table(["contrast", "difference", "p, Holm", "p, equal", "verdict"], shown)


def _check(words: str, figure: Callable[[str], str]) -> str:
    parts = re.split(r"\s+([<>=])\s+", words.strip())
    if len(parts) != 3:
        raise ValueError(f"check: {words}: give FIRST = SECOND, FIRST < SECOND or FIRST > SECOND")
    first, sign, second = parts
    if sign == "=" and _number(second) is None:
        said, holds = figure(first), figure(first) == second
    else:
        one, other = (side if _number(side) is not None else figure(side) for side in (first, second))
        said, numbers = f"{one} and {other}", (_number(one), _number(other))
        if None in numbers:
            raise ValueError(f"check: {words}: {said} are not two numbers")
        holds = COMPARISONS[sign](*numbers)  # type: ignore[arg-type]
    if not holds:
        raise ValueError(f"the page says {' '.join(words.split())}; the CSVs say {said}")
    return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def difference(row: BY_SEED, against: BY_SEED, margin: float) -> Line:
    """row - against on the seeds of both: means, t interval and verdict, as in ``against_bar.csv``.

    Raises:
        ValueError: a seed that only one side has.
    """
    if row.keys() != against.keys():
        raise ValueError(f"seeds differ: {sorted(row.keys() ^ against.keys())}")
    mean, low, high = t_interval([row[seed] - against[seed] for seed in sorted(row)])
    means = {"mean": float(np.mean(list(row.values()))), "mean_against": float(np.mean(list(against.values())))}
    found = {"seeds": len(row), **means, "difference": mean, "low": low, "high": high}
    return found | {"verdict": verdict(low, high, margin)}


def interval(line: Mapping[str, object]) -> str:
    """``+.012 (-.003 to +.027)`` of a line of `difference`, or of a CSV of such lines."""
    middle, low, high = (float(str(line[key])) for key in ("difference", "low", "high"))
    return f"{signed(middle)} ({signed(low)} to {signed(high)})"
