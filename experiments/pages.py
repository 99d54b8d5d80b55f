"""The pages of experiments, with every figure filled in from the CSVs beside them.

    python experiments/pages.py                # writes README.md from README.src.md wherever there is one
    python experiments/pages.py baselines      # of one folder

``README.src.md`` is the page with its figures in braces, and README.md what comes of it: none stands there that no CSV
bears out, and a CSV made anew gives the new page. A figure is

    {mean rows.csv macro_recall label=la_post setting='alpha=0.1 IF=50'}

``mean``, ``median``, ``least``, ``most`` and ``sum`` are over the lines that the conditions leave and that have a
number there; ``half`` is half the width of their 95 % t interval; ``count`` is their number (no column); ``only`` is
the value of the only line; ``gap`` is the mean difference to the lines of other conditions, paired by the other keys of
`PAIRED`:

    {gap rows.csv macro_recall label=scope setting=skewed -- label=la_post setting=skewed}

A condition is ``column=value``, ``column!=value``, or ``column=one|other``. A last word says how it is printed: ``:3``
is three decimals without the leading zero (the default), ``:+3`` with a sign, ``:%`` per cent (``:1%`` with a decimal),
``:0`` a whole number with commas, ``:s`` as it stands in the file. A decimal that is a setting and no result stands as
``{= .1}``.
"""

import csv
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedimb.evaluation.intervals import t_interval

HERE = Path(__file__).parent
PAIRED = ("setting", "seed", "repeat", "data_set", "set", "cell")
"""Columns that say which lines of a gap belong together, as far as a file has them."""
FIGURE = re.compile(r"\{([^{}\n]+)\}")
DECIMAL = re.compile(r"(?<![\w.])[-+]?\d*\.\d+(?![\w.])|\b\d+ ?%")
Line = dict[str, str]

OVER: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda x: float(x.mean()),
    "median": lambda x: float(np.median(x)),
    "least": lambda x: float(x.min()),
    "most": lambda x: float(x.max()),
    "sum": lambda x: float(x.sum()),
    "half": lambda x: (t_interval(x.tolist())[2] - t_interval(x.tolist())[1]) / 2,
}


@lru_cache(maxsize=64)
def lines_of(file: Path) -> tuple[Line, ...]:
    """The lines of a CSV."""
    with file.open(newline="", encoding="utf-8") as opened:
        return tuple(csv.DictReader(opened))


def chosen(lines: Sequence[Line], conditions: Sequence[str]) -> list[Line]:
    """The lines that meet all conditions.

    Raises:
        ValueError: a condition names no column, or no line is left.
    """
    left = list(lines)
    for condition in conditions:
        found = re.fullmatch(r"([^=!]+)(!?=)(.*)", condition)
        if found is None or found[1] not in lines[0]:
            raise ValueError(f"'{condition}': give column=value, of {', '.join(lines[0])}")
        column, sign, values = found[1], found[2], found[3].split("|")
        left = [line for line in left if (line[column] in values) == (sign == "=")]
        if not left:
            raise ValueError(f"no line is left by '{condition}'; {column} has {sorted({one[column] for one in lines})}")
    return left


def numbers(lines: Sequence[Line], column: str) -> np.ndarray:
    """The finite numbers of a column, float64.

    Raises:
        ValueError: there is no such column, or no number in it.
    """
    if column not in lines[0]:
        raise ValueError(f"no column '{column}', of {', '.join(lines[0])}")
    found = np.array([float(line[column]) for line in lines if line[column] not in ("", "n/a")], np.float64)
    found = found[np.isfinite(found)]
    if not len(found):
        raise ValueError(f"no number in column '{column}'")
    return found


def gap(lines: Sequence[Line], column: str, first: Sequence[str], second: Sequence[str]) -> float:
    """Mean difference of two rows over the lines that belong together."""
    fixed = {re.split(r"!?=", one)[0] for one in (*first, *second)}
    keys = [key for key in PAIRED if key in lines[0] and (key not in fixed or key in ("seed", "repeat"))]
    sides = []
    for side in (first, second):
        own = [line for line in chosen(lines, side) if line[column] not in ("", "n/a")]
        by_key = {tuple(line[key] for key in keys): float(line[column]) for line in own}
        if len(by_key) != len(own):
            raise ValueError(f"two lines for one {' and '.join(keys)}: say more of {side}")
        sides.append(by_key)
    both = sides[0].keys() & sides[1].keys()
    if not both:
        raise ValueError(f"{first} and {second} have no {' and '.join(keys)} in common")
    return float(np.mean([sides[0][key] - sides[1][key] for key in sorted(both)]))


def printed(value: float, how: str) -> str:
    """A number as ``how`` says."""
    if how.endswith("%"):
        return f"{100 * value:.{int(how[:-1] or 0)}f} %"
    if how == "0":
        return f"{value:,.0f}"
    sign, digits = ("+", how[1:]) if how.startswith("+") else ("", how)
    text = f"{value:{sign}.{int(digits)}f}"
    text = text.replace("-", "", 1) if float(text) == 0 else text  # no minus zero
    return re.sub(r"^([-+]?)0\.", r"\1.", text)


def figure(folder: Path, words: str) -> str:
    """The text for one pair of braces.

    Raises:
        ValueError: with the words, and what is wrong with them.
    """
    if words.startswith("="):
        return words[1:].strip()
    try:
        what, name, *rest = shlex.split(words)
        how = rest.pop()[1:] if rest and rest[-1].startswith(":") else "3"
        lines = lines_of(folder / name)
        if what == "count":
            return f"{len(chosen(lines, rest)):,}"
        column, *conditions = rest
        if what == "gap":
            at = conditions.index("--")
            return printed(gap(lines, column, conditions[:at], conditions[at + 1 :]), how)
        own = chosen(lines, conditions)
        if what == "only":
            (line,) = own
            return line[column] if how == "s" else printed(float(line[column]), how)
        return printed(OVER[what](numbers(own, column)), how)
    except (ValueError, KeyError, OSError, IndexError) as error:
        raise ValueError(f"{{{words}}} in {folder.name}/README.src.md: {type(error).__name__}: {error}") from error


def fill(page: str, folder: Path) -> str:
    """The page with its figures.

    Args:
        page: text with figures in braces.
        folder: of the CSVs.

    Raises:
        ValueError: a figure that the CSVs do not have.
    """
    return FIGURE.sub(lambda found: figure(folder, found[1]), page)


def bare(page: str) -> list[str]:
    """Decimals and percentages that stand in a page by themselves; those in code and links are left out."""
    text = re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|^ {4}.*?$", "", page, flags=re.DOTALL | re.MULTILINE)
    return DECIMAL.findall(FIGURE.sub("", text))


def main() -> None:
    """Write the pages."""
    wanted = sys.argv[1:] or [path.parent.name for path in sorted(HERE.glob("*/README.src.md"))]
    for name in wanted:
        page = HERE / name / "README.src.md"
        (HERE / name / "README.md").write_text(fill(page.read_text(encoding="utf-8"), page.parent), encoding="utf-8")
        print(f"wrote {name}/README.md")


if __name__ == "__main__":
    main()
