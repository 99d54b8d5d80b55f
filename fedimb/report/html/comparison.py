"""The statistics of a study as tables: effects against the control, ranks over settings, limitations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedimb.evaluation.ranks import Ranks
from fedimb.report.html.numbers import Row
from fedimb.report.html.tables import Cell, Table
from fedimb.study.results import COLUMNS
from fedimb.study.statistics import Comparison, Statistics


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of one score over settings, best first, as (row label, rank), with the test's result."""

    score: str
    settings: int
    rows: Sequence[tuple[str, float]]
    about: str
    groups: Sequence[str]
    note: str


def comparison_tables(found: Statistics, setting: str, rows: Sequence[Row]) -> list[Table]:
    """One table per score: every row that was tested against the control in this setting."""
    tables = []
    for score in found.scores:
        lines = []
        margin = math.nan
        for row in rows:
            test = found.comparisons.get((setting, score, row.label))
            if test is not None:
                margin = test.test.margin
                lines.append((row, _cells(test)))
        if lines:
            head = ["row", "effect", "95 % interval" if found.level == 0.95 else "interval"]
            head += ["won / lost / tied", "seeds", "p to differ", "verdict"]
            if not math.isnan(margin):
                head.append(f"p to be equal within {margin:g}")
            tables.append(Table(f"{COLUMNS[score]}, against {found.control}", head, lines))
    return tables


def rankings(found: Statistics) -> list[Ranking]:
    """Mean ranks over settings, by score; none with one setting."""
    if len(found.settings) < 2:
        return []
    return [_ranking(COLUMNS[score], ranks) for score, ranks in found.ranks.items()]


def chance(value: float) -> str:
    """A p-value with two figures; ``<.001`` below that."""
    if math.isnan(value):
        return "n/a"
    return "<.001" if value < 0.001 else f"{value:.2g}"


def _cells(found: Comparison) -> list[Cell]:
    test = found.test
    interval = "n/a" if math.isnan(test.low) else f"{test.low:+.3f} to {test.high:+.3f}"
    missing = f"{test.missing} missing" if test.missing else ""
    said = found.verdict or ("no claim: runs missing" if test.missing else "not shown")
    cells = [
        Cell("n/a" if math.isnan(test.effect) else f"{test.effect:+.3f}"),
        Cell(interval),
        Cell(f"{test.wins} / {test.losses} / {test.ties}"),
        Cell(str(test.n), missing),
        Cell(chance(found.p_holm), hover=f"without Holm's correction: {chance(test.p)}"),
        Cell(said, best=found.verdict == "better"),
    ]
    if not math.isnan(test.margin):
        cells.append(Cell(chance(found.tost_holm) + (", equal" if found.equivalent else "")))
    return cells


def _ranking(title: str, ranks: Ranks) -> Ranking:
    if ranks.note:
        return Ranking(title, ranks.settings, (), "", (), ranks.note)
    order = sorted(range(len(ranks.methods)), key=lambda at: ranks.mean_ranks[at])
    about = (
        f"Friedman: chi-square {ranks.chi2:.1f}, p {chance(ranks.p)}. Rows whose mean ranks are closer than "
        f"{ranks.critical_difference:.2f} do not differ significantly (Nemenyi)."
    )
    rows = [(ranks.methods[at], float(ranks.mean_ranks[at])) for at in order]
    return Ranking(title, ranks.settings, rows, about, [", ".join(group) for group in ranks.groups], "")
