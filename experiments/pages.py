"""The pages of experiments, with every figure filled in from the CSVs beside them.

    python experiments/pages.py                # writes README.md from README.src.md wherever there is one
    python experiments/pages.py baselines      # of one folder

``README.src.md`` is the page with its figures in braces, and README.md what comes of it: none stands there that no CSV
bears out, and a CSV made anew gives the new page. Code is left as it is. A figure is

    {mean rows.csv macro_recall label=la_post setting='alpha=0.1 IF=50'}

``mean``, ``median``, ``least``, ``most`` and ``sum`` are over the lines that the conditions leave, ``half`` is half the
width of their 95 % t interval (a line a seed), ``count`` their number (no column), and ``only`` the value of the only
line. ``gap`` is the mean difference to the lines of other conditions, paired by the other keys of `PAIRED`; ``wins`` is
the number of pairs in which the first is greater:

    {gap rows.csv macro_recall label=scope setting=skewed -- label=la_post setting=skewed}

A condition is ``column=value``, ``column!=value``, ``column=one|other``, or ``column<5`` (also ``<= > >=``; the right
side may be another column). A value must occur in the file. A line without a number is refused, unless ``column!=``
leaves it out in so many words. A file may be a pattern, ``../*/*rows*.csv``: those of the files that have the columns.

Figures and numbers are combined from left to right with ``+ - * /`` between blanks. ``check`` prints nothing, and
refuses the page if what the sentence says is not so; ``verdict`` prints "pass" or "**miss**":

    {mean a.csv seconds * 1000 :0} ms{check mean a.csv seconds < mean b.csv seconds}

``match`` is what a pattern's only group finds, in one place, in another file (``{match table.txt 'head ([.0-9]+)'}``).
``table`` is a whole table, mean and half width, of one column's values by another's, in the file's order:

    {table rows.csv macro_recall label setting label!=majority}

and ``each`` repeats the lines up to ``{end}``, with ``$column``, for every combination in a file or for given values:

    {each rows.csv label setting=skewed}
    | $label | {mean rows.csv macro_recall label='$label' setting=skewed :3±} |
    {end}
    {each label=fedavg|la_post name='FedAvg|shifted logits'}

The last word says how a figure is printed: ``:3`` is three decimals without the leading zero (the default), ``:+3``
with a sign, ``:3±`` with the half width, ``:%`` and ``:1%`` per cent, ``:0`` a whole number with commas (the default of
``count`` and ``wins``), ``:s`` as it stands in the file. A decimal that is a setting, or another program's or paper's,
stands as ``{= .1}``.
"""

import csv
import operator
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from string import Template

import numpy as np

from fedimb.evaluation.intervals import t_interval

HERE = Path(__file__).parent
PAIRED = ("setting", "seed", "repeat", "data_set", "set", "cell")
"""Columns that say which lines of a gap belong together, as far as a file has them."""
CODE = re.compile(r"(```[\s\S]*?```|`[^`\n]*`|(?<=\n\n)(?: {4}.*(?:\n|$))+)")
FIGURE = re.compile(r"\{([^{}\n]+)\}")
EACH = re.compile(r"^\{each ([^{}\n]+)\}\n(.*?)^\{end\}\n", re.DOTALL | re.MULTILINE)
DECIMAL = re.compile(r"(?<![\w.])[-+]?\d*\.\d+(?!\d|\.\d)|\b\d+\s?(?:%|per cent)")
CONDITION = re.compile(r"([^=!<>]+)(!=|<=|>=|=|<|>)(.*)")
BLANK = ("", "n/a", "nan")
"""What stands where a line has no number; in a condition the empty value means any of them."""
Line = dict[str, str]

OVER: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda x: float(x.mean()),
    "median": lambda x: float(np.median(x)),
    "least": lambda x: float(x.min()),
    "most": lambda x: float(x.max()),
    "sum": lambda x: float(x.sum()),
    "half": lambda x: half(x),
    "only": lambda x: only(x),
}
OVER_PAIRS: dict[str, Callable[[np.ndarray], float]] = {
    "gap": lambda x: float(x.mean()),
    "wins": lambda x: float((x > 0).sum()),
}
OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def half(x: np.ndarray) -> float:
    """Half the width of the 95 % t interval.

    Raises:
        ValueError: one number has no interval.
    """
    if len(x) < 2:
        raise ValueError("one number has no interval")
    _, low, high = t_interval(x.tolist())
    return (high - low) / 2


def only(x: np.ndarray) -> float:
    """The only number.

    Raises:
        ValueError: there are more.
    """
    if len(x) != 1:
        raise ValueError(f"{len(x)} lines are left: say more")
    return float(x[0])


@lru_cache(maxsize=64)
def read(file: Path) -> tuple[Line, ...]:
    """The lines of a CSV."""
    with file.open(newline="", encoding="utf-8") as opened:
        return tuple(csv.DictReader(opened))


def lines_of(folder: Path, name: str, columns: Sequence[str]) -> list[Line]:
    """The lines of a CSV, or of all that a pattern names and that have the columns.

    Raises:
        ValueError: there is no such file, no line in it, or no such column.
    """
    files = sorted(folder.glob(name)) if "*" in name else [folder / name]
    found = [line for file in files for line in read(file) if "*" not in name or line.keys() >= set(columns)]
    if not found:
        raise ValueError(f"no lines in {name}")
    for column in columns:
        if column not in found[0]:
            raise ValueError(f"no column '{column}', of {', '.join(found[0])}")
    return found


def split(condition: str) -> tuple[str, str, str]:
    """(column, sign, value) of a condition.

    Raises:
        ValueError: it is none.
    """
    found = CONDITION.fullmatch(condition)
    if found is None:
        raise ValueError(f"'{condition}': give column=value")
    return found[1], found[2], found[3]


def holds(line: Line, column: str, sign: str, value: str) -> bool:
    """Whether a line meets a condition."""
    if sign in ("=", "!="):
        own = "" if line[column] in BLANK else line[column]
        return (own in value.split("|")) == (sign == "=")
    return COMPARISONS[sign](float(line[column]), float(line.get(value, value)))


def chosen(lines: Sequence[Line], conditions: Sequence[str]) -> list[Line]:
    """The lines that meet all conditions, in their order; perhaps none.

    Raises:
        ValueError: a condition names a value that its column does not have.
    """
    left = list(lines)
    for condition in conditions:
        column, sign, value = split(condition)
        if sign in ("=", "!="):
            has = {line[column] for line in lines} | {""}
            if unknown := [one for one in value.split("|") if one not in has]:
                raise ValueError(f"no {column} is '{unknown[0]}', of {', '.join(sorted(has)[:40])}")
        left = [line for line in left if holds(line, column, sign, value)]
    return left


def numbers(lines: Sequence[Line], column: str) -> np.ndarray:
    """The numbers of a column, float64.

    Raises:
        ValueError: no line is left, or one has no number.
    """
    if not lines:
        raise ValueError("no line is left")
    if without := sum(line[column] in BLANK for line in lines):
        raise ValueError(f"{without} of {len(lines)} lines have no {column}; '{column}!=' leaves them out")
    return np.array([float(line[column]) for line in lines], np.float64)


def differences(lines: Sequence[Line], column: str, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    """First less second, of the lines that belong together, float64.

    Raises:
        ValueError: a line has no or more than one partner.
    """
    fixed = {split(one)[0] for one in (*first, *second)}
    keys = [key for key in PAIRED if key in lines[0] and (key not in fixed or key in ("seed", "repeat"))]
    sides = []
    for side in (first, second):
        own = chosen(lines, side)
        values = numbers(own, column)
        by_key = {tuple(line[key] for key in keys): value for line, value in zip(own, values, strict=True)}
        if len(by_key) != len(own):
            raise ValueError(f"two lines for one {' and '.join(keys)}: say more of {side}")
        sides.append(by_key)
    if alone := sides[0].keys() ^ sides[1].keys():
        raise ValueError(f"{len(alone)} lines have no partner, such as {' '.join(sorted(alone)[0])}")
    return np.array([sides[0][key] - sides[1][key] for key in sorted(sides[0])])


def matched(file: Path, pattern: str) -> str:
    """What the pattern's group finds.

    Raises:
        ValueError: it is not found, or found twice.
    """
    found = re.findall(pattern, file.read_text(encoding="utf-8"))
    if len(found) != 1:
        raise ValueError(f"'{pattern}' is found {len(found)} times")
    return str(found[0])


def one_per_seed(lines: Sequence[Line]) -> Sequence[Line]:
    """The lines, which an interval takes for independent.

    Raises:
        ValueError: two have one seed, as two settings of a run.
    """
    keys = [key for key in ("seed", "repeat") if lines and key in lines[0]]
    if keys and len({tuple(line[key] for key in keys) for line in lines}) < len(lines):
        raise ValueError(f"an interval over two lines of one {' and '.join(keys)}: say more")
    return lines


def sample(folder: Path, words: Sequence[str], interval: bool = False) -> np.ndarray:
    """The numbers that a figure is over; those of an interval have a seed each."""
    what, name, column, *conditions = words
    named = [split(one)[0] for one in conditions if one != "--"]
    lines = lines_of(folder, name, [column, *named])
    at = conditions.index("--") if what in OVER_PAIRS else len(conditions)
    own = chosen(lines, conditions[:at])
    if interval:
        one_per_seed(own)
    if what in OVER_PAIRS:
        return differences(lines, column, conditions[:at], conditions[at + 1 :])
    return numbers(own, column)


def term(folder: Path, words: Sequence[str]) -> float:
    """One figure's or number's value."""
    what, *rest = words
    if not rest:
        return float(what)
    if what == "count":
        return len(chosen(lines_of(folder, rest[0], [split(one)[0] for one in rest[1:]]), rest[1:]))
    if what == "match":
        return float(matched(folder / rest[0], rest[1]).replace(",", ""))
    return (OVER | OVER_PAIRS)[what](sample(folder, words, what == "half"))


def value(folder: Path, words: Sequence[str]) -> float:
    """Figures and numbers combined from left to right."""
    left = list(words)
    total, operation = 0.0, "+"
    while True:
        own = list(takewhile(lambda word: word not in OPERATIONS, left))
        total = OPERATIONS[operation](total, term(folder, own))
        left = left[len(own) :]
        if not left:
            return total
        operation = left.pop(0)


def compared(folder: Path, words: Sequence[str]) -> tuple[bool, str]:
    """Whether a comparison is so, and the two values."""
    (at,) = (i for i, word in enumerate(words) if word in COMPARISONS)
    first, second = value(folder, words[:at]), value(folder, words[at + 1 :])
    return COMPARISONS[words[at]](first, second), f"{first:g} {words[at]} {second:g}"


def printed(number: float, how: str) -> str:
    """A number as ``how`` says."""
    found = re.fullmatch(r"(\+?)(\d*)(%?)", how)
    if found is None or not how:
        raise ValueError(f"':{how}' says nothing of printing")
    sign, digits, per_cent = found.groups()
    text = f"{100 * number if per_cent else number:{sign},.{int(digits or 0)}f}"
    text = re.sub(r"^[-+](?=[0.,]+$)", sign and "+", text)  # no minus zero
    return f"{text} %" if per_cent else re.sub(r"^([-+]?)0\.", r"\1.", text)


def with_half(x: np.ndarray, how: str) -> str:
    """Mean and half width."""
    return f"{printed(float(x.mean()), how)} ± {printed(half(x), how.lstrip('+'))}"


def table(folder: Path, words: Sequence[str], how: str) -> str:
    """One column's mean and half width, of each value of a second by each of a third."""
    name, column, down, across, *conditions = words
    lines = chosen(lines_of(folder, name, [column, down, across, *(split(one)[0] for one in conditions)]), conditions)
    heads = list(dict.fromkeys(line[across] for line in lines))
    text = [f"| {down} | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for row in dict.fromkeys(line[down] for line in lines):
        cells = []
        for head in heads:
            own = [line for line in lines if (line[down], line[across]) == (row, head)]
            cells.append(with_half(numbers(one_per_seed(own), column), how) if own else "none")
        text.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(text)


def figure(folder: Path, words: str) -> str:
    """The text for one pair of braces.

    Raises:
        ValueError: with the words, and what is wrong with them.
    """
    if words.startswith("="):
        return words[1:].strip()
    try:
        tokens = shlex.split(words)
        what = tokens[0]
        how = tokens.pop()[1:] if tokens[-1].startswith(":") else "0" if what in ("count", "wins") else "3"
        if what in ("check", "verdict"):
            true, values = compared(folder, tokens[1:])
            if what == "check" and not true:
                raise ValueError(f"{values} is not so")
            return "" if what == "check" else "pass" if true else "**miss**"
        if what == "table":
            return table(folder, tokens[1:], how)
        if how == "s":
            return as_it_stands(folder, tokens)
        if how.endswith("±"):
            if what not in ("mean", "gap"):
                raise ValueError("'±' is for mean and gap")
            return with_half(sample(folder, tokens, interval=True), how[:-1])
        return printed(value(folder, tokens), how)
    except (ValueError, KeyError, OSError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{{{words}}} in {folder.name}/README.src.md: {type(error).__name__}: {error}") from error


def as_it_stands(folder: Path, words: Sequence[str]) -> str:
    """The text of a file's only line, or of a match."""
    what, name, rest, *conditions = words
    if what == "match":
        return matched(folder / name, rest)
    if what != "only":
        raise ValueError("':s' is for only and match")
    (line,) = chosen(lines_of(folder, name, [rest, *(split(one)[0] for one in conditions)]), conditions)
    return line[rest]


def repeated(folder: Path, words: str, body: str) -> str:
    """The lines of an ``each``, once for each combination.

    Raises:
        ValueError: with the words, and what is wrong with them.
    """
    try:
        first, *rest = tokens = shlex.split(words)
        if "=" in first:
            given = {column: values.split("|") for column, _, values in map(split, tokens)}
            each = [dict(zip(given, own, strict=True)) for own in zip(*given.values(), strict=True)]
        else:
            conditions = [word for word in rest if CONDITION.fullmatch(word)]
            columns = [word for word in rest if word not in conditions]
            lines = chosen(lines_of(folder, first, [*columns, *(split(one)[0] for one in conditions)]), conditions)
            own = dict.fromkeys(tuple(line[column] for column in columns) for line in lines)
            each = [dict(zip(columns, values, strict=True)) for values in own]
        return "".join(Template(body).substitute(one) for one in each)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"{{each {words}}} in {folder.name}/README.src.md: {error}") from error


def fill(page: str, folder: Path) -> str:
    """The page with its figures.

    Args:
        page: text with figures in braces.
        folder: of the CSVs.

    Raises:
        ValueError: a figure that the CSVs do not have, or a claim that they do not bear out.
    """
    whole = EACH.sub(lambda found: repeated(folder, found[1], found[2]), page)
    parts = CODE.split(whole)  # code at odd places
    parts[::2] = [FIGURE.sub(lambda found: figure(folder, found[1]), text) for text in parts[::2]]
    return "".join(parts)


def bare(page: str) -> list[str]:
    """Decimals and percentages that stand in a page by themselves; those in code and links are left out."""
    text = re.sub(r"\]\([^)]*\)", "]", CODE.sub(" ", page))
    return DECIMAL.findall(FIGURE.sub(" ", text))


def main() -> None:
    """Write the pages."""
    wanted = sys.argv[1:] or [path.parent.name for path in sorted(HERE.glob("*/README.src.md"))]
    for name in wanted:
        page = HERE / name / "README.src.md"
        (HERE / name / "README.md").write_text(fill(page.read_text(encoding="utf-8"), page.parent), encoding="utf-8")
        print(f"wrote {name}/README.md")


if __name__ == "__main__":
    main()
