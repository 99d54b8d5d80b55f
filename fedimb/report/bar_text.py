"""Rows against the bar, in every setting and over data sets, as plain text for a terminal and as CSV."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from fedimb.evaluation.ranks import Ranks
from fedimb.report.statistics_text import wrapped
from fedimb.study.over_sets import Contrast, OverSets, SetVerdict
from fedimb.study.results import COLUMNS, Bar, StudyResults
from fedimb.study.statistics import AgainstBar, Statistics
from fedimb.text import WIDTH, aligned, chance, plain, shorten

_MOST_SCORES = 2  # that fit beside each other; the others are in the CSV
_LABEL = 24


def bar_table(study: StudyResults, found: Statistics, stream: TextIO | None = None) -> str:
    """Every row of every setting against its bar; empty without a bar.

    Args:
        study: its results.
        found: its statistics.
        stream: where the text will be written; only its encoding matters. Default: standard output.

    Returns:
        text without a final newline, each line under 100 columns.
    """
    blocks = [block for bar in study.bars for block in _setting(study, found, bar, stream)]
    if not blocks:
        return ""
    return "\n\n".join("\n".join(block) for block in [*blocks, _legend(study, found)])


def _setting(study: StudyResults, found: Statistics, bar: Bar, stream: TextIO | None) -> list[list[str]]:
    chosen = [f"{plain(k, stream)} {_figure(v)}" for k, v in bar.validation.items()]
    seeds = f"{len(bar.seeds)} seed{'s' * (len(bar.seeds) != 1)}"
    where = f"{plain(bar.setting, stream)}, classes of {bar.min_count} row{'s' * (bar.min_count > 1)} or more"
    if bar.label is None:
        return [wrapped(f"{where}: no bar, since no free row has a score from every seed: {', '.join(chosen)}")]
    own = [a for a in found.against_bar if (a.setting, a.min_count) == (bar.setting, bar.min_count)]
    scores = [score for score in found.scores if any(a.score == score for a in own)][:_MOST_SCORES]
    head = wrapped(
        f"{where}: the bar is {plain(bar.label, stream)}, by {COLUMNS[bar.score]} on validation rows, {seeds}: "
        f"{', '.join(chosen)}"
    )
    if not own:  # the same rows as at the other minimum count, or no finished run
        return []
    lines = [["row", *(cell for score in scores for cell in (COLUMNS[score], "interval", ""))]]
    for label in dict.fromkeys(a.label for a in own):
        cells = {a.score: a for a in own if a.label == label}
        lines.append([shorten(plain(label, stream), _LABEL), *(c for s in scores for c in _against(cells.get(s)))])
    return [[*head, *aligned(lines)]]


def _against(one: AgainstBar | SetVerdict | None) -> list[str]:
    if one is None:
        return ["", "", ""]
    return [_signed(one.difference), _interval(one.low, one.high), one.said]


def _legend(study: StudyResults, found: Statistics) -> list[str]:
    percent = f"{100 * found.level:.4g} %"
    lines = [
        f"against the bar: mean difference over the seeds of both with its {percent} t interval; level: it is within "
        f"{study.bar_margin:g}; beats, below: else it is above, below 0; undecided: else, or runs are missing",
        "one data set each: what holds over its seeds is not shown for other data; verdicts are not corrected for the "
        "number of rows",
    ]
    return [part for line in lines for part in wrapped(line)]


def sets_table(over: OverSets, stream: TextIO | None = None) -> str:
    """Every row against the bar over data sets, mean ranks, and the contrasts that the study names."""
    blocks = [_sets(over, count, stream) for count in dict.fromkeys(one.min_count for one in over.verdicts)]
    blocks += [_ranks(over, score, ranks, stream) for score, ranks in over.ranks.items()]
    if over.contrasts:
        blocks.append(_contrasts(over.contrasts, stream))
    if over.notes:
        blocks.append([line for note in over.notes for line in wrapped(plain(note, stream))])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _sets(over: OverSets, count: int, stream: TextIO | None) -> list[str]:
    own = [one for one in over.verdicts if one.min_count == count]
    scores = list(dict.fromkeys(one.score for one in own))[:_MOST_SCORES]
    lines = [["row", "sets", *(cell for score in scores for cell in (COLUMNS[score], "interval", ""))]]
    for label in dict.fromkeys(one.label for one in own):
        cells = {one.score: one for one in own if one.label == label}
        sets = min(one.sets for one in cells.values())
        shown = [c for s in scores for c in _against(cells.get(s))]
        lines.append([shorten(plain(label, stream), _LABEL), str(sets), *shown])
    title = (
        f"over {len(over.data_sets)} data sets, difference to each one's bar at classes of {count} "
        f"row{'s' * (count > 1)} or more (seeds averaged, then partitions)"
    )
    return [*wrapped(title), *aligned(lines)]


def _ranks(over: OverSets, score: str, ranks: Ranks, stream: TextIO | None) -> list[str]:
    if ranks.note:
        return wrapped(f"{COLUMNS[score]} over data sets: {ranks.note}")
    order = sorted(range(len(ranks.methods)), key=lambda at: ranks.mean_ranks[at])
    shown = ", ".join(f"{plain(ranks.methods[at], stream)} {ranks.mean_ranks[at]:.2f}" for at in order)
    return wrapped(
        f"{COLUMNS[score]} over {ranks.settings} data sets, mean ranks (1 is best): {shown}. Friedman: chi-square "
        f"{_figure(ranks.chi2)}, p = {chance(ranks.p)}; ranks closer than {ranks.critical_difference:.2f} do not "
        "differ significantly (Nemenyi); a description, not a claim"
    )


def _contrasts(contrasts: Sequence[Contrast], stream: TextIO | None) -> list[str]:
    lines = [["contrast", "difference", "95 % interval", "p to differ", "p to equal", "", ""]]
    for one in contrasts:
        name = f"{plain(one.first, stream)} - {plain(one.second, stream)}"
        effect = one.effect
        figures = [_signed(effect.difference), _interval(effect.low, effect.high)]
        lines.append([name, *figures, chance(one.p_holm), chance(one.equal_holm), one.said, effect.method])
    heading = f"contrasts in {COLUMNS[contrasts[0].score]} over data sets, p after Holm over {len(contrasts)}"
    return [*wrapped(heading), *(shorten(line, WIDTH) for line in aligned(lines))]


def bar_csv(found: Statistics, path: Path) -> Path:
    """Write one line per row, setting, score and minimum count: its difference to the bar and the verdict."""
    names = ["setting", "score", "label", "bar", "min_count", "seeds", "missing", "difference", "low", "high"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "margin", "verdict"])
        for a in found.against_bar:
            figures = [_cell(value) for value in (a.difference, a.low, a.high, a.margin)]
            writer.writerow([a.setting, a.score, a.label, a.bar, a.min_count, a.n, a.missing, *figures, a.said])
    return path


def sets_csv(over: OverSets, path: Path) -> Path:
    """Write one line per row, score and minimum count over data sets: the difference to the bar, in all and in each."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ["score", "label", "min_count", "sets", "difference", "low", "high", "verdict", "mean_rank"]
        writer.writerow([*names, *over.data_sets])
        for one in over.verdicts:
            rank = over.rank(one.score, one.label)
            figures = [_cell(value) for value in (one.difference, one.low, one.high)]
            each = [_cell(one.by_set[name]) for name in over.data_sets]
            writer.writerow([one.score, one.label, one.min_count, one.sets, *figures, one.said, _cell(rank), *each])
    return path


def contrasts_csv(over: OverSets, registered: str, path: Path) -> Path:
    """Write one line per contrast; ``status`` is ``registered`` or ``exploratory``."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [
            "score",
            "first",
            "second",
            "sets",
            "difference",
            "low",
            "high",
            "p",
            "p_holm",
            "p_equal",
            "equal_holm",
        ]
        writer.writerow([*names, "verdict", "method", "status"])
        for one in over.contrasts:
            e = one.effect
            figures = [e.difference, e.low, e.high, e.p, one.p_holm, e.p_equal, one.equal_holm]
            cells = [_cell(value) for value in figures]
            writer.writerow([one.score, one.first, one.second, e.sets, *cells, one.said, e.method, registered])
    return path


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _figure(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _signed(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:+.3f}"


def _interval(low: float, high: float) -> str:
    return "n/a" if math.isnan(low) else f"{low:+.3f} to {high:+.3f}"
