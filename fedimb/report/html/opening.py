"""The three pictures that a page opens with: what each class gets, who holds the rare ones, what the rows cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedimb.report.html.classes import Ranks
from fedimb.report.html.curves import cost_of, cost_svg
from fedimb.report.html.holders import holders_lines, holders_svg
from fedimb.report.html.legend import Entry, foremost
from fedimb.report.html.numbers import Row
from fedimb.report.html.recall import DRAWN, recall_svg
from fedimb.study.results import Setting

COSTS = ("labels", "bytes", "client_seconds")
_WORDS = {"labels": "the labels it used", "bytes": "what it sent", "client_seconds": "the clients' training time"}


@dataclass(frozen=True)
class Opening:
    """The pictures of one setting as markup, each empty if it cannot be drawn.

    Attributes:
        few: the rows in `recall`.
        recall: recall per class with intervals.
        holders: rows of the minority at each client; `holding`: the same in sentences.
        cost: minority recall against a cost, the free rows hollow; `against`: which cost, in words.
        cost_name: of `COSTS`, so that it is not drawn again; empty without a picture.
        free: the free rows of `cost`.
        bar: label of the row at the dotted line in `cost`; None without.
    """

    few: Sequence[Entry]
    recall: str
    holders: str
    holding: Sequence[str]
    cost: str
    against: str
    cost_name: str
    free: Sequence[Row]
    bar: str | None


def opening(
    key: str, setting: Setting, rows: Sequence[Row], entries: Sequence[Entry], ranks: Ranks, bar: str | None
) -> Opening:
    """The pictures of a setting.

    Args:
        key: prefix of the pictures' ids, unique on the page.
        rows: of the setting; ``entries``: those in colour.
        ranks: its classes from head to tail.
        bar: label of the setting's bar (`fedimb.study.results.Bar`), or None.
    """
    at_bar = next((row for row in rows if row.label == bar), None)
    name, cost = "", ""
    for name in (*_asked(rows), "bytes", "client_seconds"):
        if cost := cost_svg(rows, entries, name, f"{key}-{name}", at_bar):
            break
    return Opening(
        foremost(entries, DRAWN),
        recall_svg(entries, ranks, f"{key}-recall"),
        holders_svg(setting, f"{key}-holders"),
        holders_lines(setting),
        cost,
        _WORDS[name],
        name if cost else "",
        [row for row in rows if row.free and row.finished],
        None if at_bar is None else at_bar.label,
    )


def _asked(rows: Sequence[Row]) -> list[str]:
    """``labels`` if rows used different numbers of them: then labels are what is paid for."""
    used = {spent for row in rows if (spent := cost_of(row, "labels")) == spent}
    return ["labels"] if len(used) > 1 else []
