"""A study's statistics as a CSV, one line per comparison, and as plain text for a terminal."""

import csv
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import TextIO

from fedimb.evaluation.significance import Paired
from fedimb.study.results import COLUMNS
from fedimb.study.statistics import Comparison, Statistics, Summary
from fedimb.text import WIDTH, aligned, chance, pad, plain, shorten, width, writable

_UPPER = ["", "", "", "", "interval", "wins/", "p to ", "p to "]
_LOWER = ["seeds", "mean", "median", "effect", "of the effect", "l/t", "differ", "equal "]


def statistics_csv(found: Statistics, path: Path) -> Path:
    """Write one line per comparison: all fields of `Paired`, both p-values after Holm, and the verdicts.

    Empty cells are undefined values. Effects are row - control, in the unit of the score.
    """
    names = [field.name for field in fields(Paired)]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["setting", "score", "label", "control", *names, "p_holm", "tost_holm", "verdict", "equivalent"]
        )
        for c in found.comparisons.values():
            numbers = [*asdict(c.test).values(), c.p_holm, c.tost_holm]
            cells = ["" if math.isnan(number) else f"{number:.6g}" for number in numbers]
            equivalent = "" if math.isnan(c.tost_holm) else str(c.equivalent).lower()
            writer.writerow([c.setting, c.score, c.label, c.control, *cells, c.verdict, equivalent])
    return path


def statistics_table(found: Statistics, stream: TextIO | None = None) -> str:
    """Every row of every setting and score against the control, then ranks over settings, then notes.

    Args:
        found: see `fedimb.study.statistics.statistics`.
        stream: where the text will be written; only its encoding matters. Default: standard output.

    Returns:
        text without a final newline, each line under 100 columns; a longer label gets its own line.
    """
    if not found.summaries:
        return "No results to compare."
    sign = "±" if writable("±", stream) else "+-"
    blocks = [_block(found, setting, score, sign, stream) for setting in found.settings for score in found.scores]
    blocks += [_ranks(found, score, stream) for score in found.scores]
    return "\n\n".join("\n".join(block) for block in [*blocks, _legend(found, sign, stream)])


def _block(found: Statistics, setting: str, score: str, sign: str, stream: TextIO | None) -> list[str]:
    rows = [found.summaries[setting, score, label] for label in found.labels]
    rows = [row for row in rows if row.values]  # a row may belong to some settings only
    cells = [[*_mean(row, sign), *_test(found.comparisons.get((setting, score, row.label)))] for row in rows]
    heads = [_UPPER, _LOWER]
    if found.control is None:
        heads, cells = [_LOWER[:3]], [line[:3] for line in cells]
    figures = aligned([*heads, *cells], left=0)
    taken = max(map(width, figures))
    names = [plain(row.label, stream) for row in rows]
    room = WIDTH - 2 - taken
    label_width = max([len("strategy"), *[width(name) for name in names if width(name) <= room]])
    against = f", against {plain(found.control, stream)}" if found.control is not None else ""
    lines = [shorten(f"{plain(setting, stream)}: {COLUMNS[score]}{against}", WIDTH)]
    *above, last = figures[: len(heads)]
    lines += [f"{pad('', label_width)}  {text}".rstrip() for text in above]
    lines.append(f"{pad('strategy', label_width)}  {last}")
    lines.append("-" * (label_width + 2 + taken))
    for name, text in zip(names, figures[len(heads) :], strict=True):
        if width(name) > room:
            lines.append(shorten(name, WIDTH))
            name = ""
        lines.append(f"{pad(name, label_width)}  {text}")
    for name, row in zip(names, rows, strict=True):
        if trouble := _trouble(row):
            lines.append(shorten(name, max(12, WIDTH - 2 - width(trouble))) + ": " + trouble)
    return lines


def _mean(row: Summary, sign: str) -> list[str]:
    """Seeds, mean with its spread, median. Of an asymmetric interval the wider half is shown."""
    half = max(row.high - row.mean, row.mean - row.low)
    spread = "" if math.isnan(half) else f" {sign} {_score(half)}"
    seeds = str(row.n) if row.complete else f"{row.n}/{len(row.values)}"
    return [seeds, _score(row.mean) + spread, _score(row.median)]


def _test(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return [""] * 5
    test = comparison.test
    interval = "n/a" if math.isnan(test.low) else f"{_signed(test.low)} to {_signed(test.high)}"
    # Every row has a place for the mark, so that figures are aligned.
    differ = chance(comparison.p_holm) + {"better": "+", "worse": "-", "": " "}[comparison.verdict]
    equal = chance(comparison.tost_holm) + ("=" if comparison.equivalent else " ")
    return [_signed(test.effect), interval, f"{test.wins}/{test.losses}/{test.ties}", differ, equal]


def _trouble(row: Summary) -> str:
    """``"1 diverged (seed 3), 2 failed (seeds 4, 5)"``, or empty; many seeds are only counted."""
    parts = []
    for what, seeds in (("diverged", row.diverged), ("failed", row.failed)):
        if seeds:
            word = "seed" if len(seeds) == 1 else "seeds"
            which = f" ({word} {', '.join(map(str, seeds))})" if len(seeds) <= 6 else ""
            parts.append(f"{len(seeds)} {what}{which}")
    if row.undefined:
        parts.append(f"{row.undefined} without this score")
    return ", ".join(parts)


def _ranks(found: Statistics, score: str, stream: TextIO | None) -> list[str]:
    title, ranks = COLUMNS[score], found.ranks[score]
    if ranks.note:
        return wrapped(f"{title} over settings: {ranks.note}")
    order = sorted(range(len(ranks.methods)), key=lambda at: ranks.mean_ranks[at])
    names = {method: shorten(plain(method, stream), 40) for method in ranks.methods}
    shown = ", ".join(f"{names[ranks.methods[at]]} {ranks.mean_ranks[at]:.2f}" for at in order)
    lines = wrapped(f"{title} over {ranks.settings} settings, mean ranks (1 is best): {shown}")
    apart = f"ranks closer than {ranks.critical_difference:.2f} do not differ significantly (Nemenyi)"
    lines += wrapped(f"Friedman: chi-square {_score(ranks.chi2)}, p = {chance(ranks.p)}; {apart}")
    if left_out := [shorten(plain(label, stream), 40) for label in found.labels if label not in names]:
        lines += wrapped("no rank, because not in every setting or without this score: " + ", ".join(left_out))
    for group in ranks.groups:
        lines += wrapped("no significant difference: " + ", ".join(names[method] for method in group))
    return lines


def _legend(found: Statistics, sign: str, stream: TextIO | None) -> list[str]:
    percent = f"{100 * found.level:.4g} %"
    spread = "t interval" if found.spread == "t" else "BCa interval (its wider half)"
    lines = [f"mean {sign} half-width of the {percent} {spread} over the seeds with a score"]
    if found.comparisons:
        margins = {c.test.margin for c in found.comparisons.values()}
        margin = next(iter(margins))
        lines += [
            "effect: Hodges-Lehmann, row - control on the same seeds, with its distribution-free interval",
            "p to differ: Wilcoxon signed-rank (Pratt), Holm over the rows of a table",
            f"+ better, - worse at {percent}; neither is claimed while a run of the row or of the control is missing",
        ]
        if not math.isnan(margin):
            lines.insert(3, f"p to equal: two one-sided paired t tests within {margin:g}, also Holm; = equivalent")
    if any(s.diverged or s.failed for s in found.summaries.values()):
        lines.append("a run that diverged or failed loses to one that finished, and its row ranks last in that setting")
    lines += [plain(note, stream) for note in found.notes]
    return [part for line in lines for part in wrapped(line)]


def wrapped(text: str) -> list[str]:
    """Wrap the text to lines of `WIDTH`, later ones indented."""
    lines: list[str] = []
    for word in text.split():
        if lines and width(lines[-1]) + 1 + width(word) <= WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(shorten(("  " if lines else "") + word, WIDTH))
    return lines


def _score(value: float) -> str:
    """Three decimals; from 100 on three figures and a unit prefix, e.g. for bytes."""
    if math.isnan(value):
        return "n/a"
    if abs(value) < 100:
        return f"{value:.3f}"
    for unit in ("", "k", "M", "G", "T"):
        if abs(value) < 999.5 or unit == "T":
            break
        value /= 1000
    return f"{value:.3g}{unit}"


def _signed(value: float) -> str:
    return _score(value) if math.isnan(value) else f"{'-' if value < 0 else '+'}{_score(abs(value))}"
