"""Pages of experiments whose figures are filled in from CSVs, so that none stands there that they do not bear out.

A page is ``page.md`` with words in braces, such as ``{mean lda macro_recall}``; `fill` asks the study's own object for
the figure of these words. A test fills the page again and compares it with the ``README.md`` that is kept.
"""

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fedimb.evaluation.intervals import t_interval
from fedimb.evaluation.verdict import verdict

Row = dict[str, str]
Line = dict[str, object]
BY_SEED = Mapping[int, float]


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
    """The page: ``{words}`` replaced by the figure of these words. Raises what ``figure`` raises for unknown words."""
    return re.sub(r"\{([^{}]+)\}", lambda found: figure(found[1]), text)


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
