"""Rows against the bar as the page's tables: in every setting, over data sets, and the contrasts that a study names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedimb.report.critical_difference import drawable, rank_figure, rank_title
from fedimb.report.html.comparison import chance
from fedimb.report.html.numbers import Row
from fedimb.report.html.pictures import svg
from fedimb.report.html.tables import Cell, Table
from fedimb.study.over_sets import OverSets
from fedimb.study.results import COLUMNS, StudyResults
from fedimb.study.statistics import AgainstBar, Statistics


@dataclass(frozen=True)
class SettingBar:
    """The bar of one setting: how it was chosen, in words, and the rows against it."""

    setting: str
    about: str
    tables: Sequence[Table]


@dataclass(frozen=True)
class Contrasts:
    """The contrasts of a study as (name, cells), best-known figures first."""

    caption: str
    lines: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class DataSets:
    """Statistics over data sets: tables, pictures of ranks as markup, contrasts, limitations."""

    tables: Sequence[Table]
    pictures: Sequence[str]
    contrasts: Contrasts | None
    notes: Sequence[str]


def setting_bars(study: StudyResults, found: Statistics, rows: dict[str, list[Row]]) -> list[SettingBar]:
    """One for every setting and minimum count that has a bar; rows of each setting by its name."""
    shown = []
    for bar in study.bars:
        own = [a for a in found.against_bar if (a.setting, a.min_count) == (bar.setting, bar.min_count)]
        chosen = ", ".join(
            f"{label} {'n/a' if math.isnan(mean) else f'{mean:.3f}'}" for label, mean in bar.validation.items()
        )
        about = (
            f"Classes of {bar.min_count} row{'s' * (bar.min_count > 1)} or more: the bar is {bar.label}, by "
            f"{COLUMNS[bar.score]} on validation rows of {len(bar.seeds)} seed{'s' * (len(bar.seeds) != 1)} ({chosen})."
        )
        if bar.label is None:
            about = f"No bar: no free row has a score from every seed ({chosen})."
        elif not own:
            continue
        shown.append(SettingBar(bar.setting, about, _tables(own, found, rows.get(bar.setting, []))))
    return shown


def _tables(own: Sequence[AgainstBar], found: Statistics, rows: Sequence[Row]) -> list[Table]:
    tables = []
    for score in found.scores:
        of = {a.label: a for a in own if a.score == score}
        lines = [(row, _cells(of[row.label])) for row in rows if row.label in of]
        if lines:
            one = next(iter(of.values()))
            head = ["row", "difference", "95 % interval", "seeds", f"verdict, margin {one.margin:g}"]
            tables.append(Table(f"{COLUMNS[score]}, against the bar, {one.bar}", head, lines))
    return tables


def _cells(one: AgainstBar) -> list[Cell]:
    missing = f"{one.missing} missing" if one.missing else ""
    return [*_figures(one.difference, one.low, one.high), Cell(str(one.n), missing), _said(one.said)]


def _figures(difference: float, low: float, high: float) -> list[Cell]:
    interval = "n/a" if math.isnan(low) else f"{low:+.3f} to {high:+.3f}"
    return [Cell("n/a" if math.isnan(difference) else f"{difference:+.3f}"), Cell(interval)]


def _said(verdict: str) -> Cell:
    return Cell(verdict, best=verdict == "beats")


def data_sets(over: OverSets, labels: Sequence[str]) -> DataSets:
    """The statistics over data sets; ``labels`` are the study's rows, which give rows their numbers."""
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    tables = []
    keys = dict.fromkeys((one.score, one.min_count) for one in over.verdicts)
    for score, count in keys:
        own = [one for one in over.verdicts if (one.score, one.min_count) == (score, count)]
        lines = []
        for one in own:
            rank = over.rank(score, one.label)
            cells = [*_figures(one.difference, one.low, one.high), Cell(str(one.sets)), _said(one.said)]
            cells.append(Cell("n/a" if math.isnan(rank) else f"{rank:.2f}"))
            lines.append((Row(numbers[one.label], one.label, (), False), cells))
        caption = f"{COLUMNS[score]}, difference to each data set's bar (classes of {count} or more)"
        tables.append(
            Table(caption, ["row", "difference", "95 % interval", "data sets", "verdict", "mean rank"], lines)
        )
    pictures = [
        svg(rank_figure(ranks, rank_title(over, score)), f"ranks-{score}", f"mean ranks in {rank_title(over, score)}")
        for score, ranks in over.ranks.items()
        if drawable(ranks)
    ]
    return DataSets(tables, pictures, _contrasts(over), over.notes)


def _contrasts(over: OverSets) -> Contrasts | None:
    if not over.contrasts:
        return None
    lines = []
    for one in over.contrasts:
        figures = [cell.text for cell in _figures(one.effect.difference, one.effect.low, one.effect.high)]
        cells = [*figures, chance(one.p_holm), chance(one.equal_holm), one.said, one.effect.method]
        lines.append((f"{one.first} - {one.second}", cells))
    return Contrasts(f"{COLUMNS[over.contrasts[0].score]}, p after Holm over {len(lines)} contrasts", lines)
