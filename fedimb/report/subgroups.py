"""A run's scores by subgroup as text: a table per attribute, the worst group beside the worst site."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any, TextIO

from fedimb.evaluation.subgroups import worst_subgroup
from fedimb.plain import JsonObject
from fedimb.rundir.result import RowResult, RunResult
from fedimb.text import WIDTH, aligned, plain, score, shorten

_HEAD = ("rows", "classes", "recall", "of all", "gap", "ECE", "of all", "Brier", "of all")


def subgroup_lines(result: RunResult, stream: TextIO | None = None) -> list[str]:
    """Recall, ECE and Brier of every group with rows, each beside all rows of the same classes; empty without any."""
    found: JsonObject = result.subgroups
    if not found:
        return []
    lines: list[str] = []
    for row in result.rows:
        tables = found["rows"].get(row.label) or []
        for table in tables:
            lines += [*aligned([[f"{row.label}, by {plain(table['name'], stream)}", *_HEAD], *_groups(table, stream)])]
            lines.append("")
        lines += [*_worst(row, tables, stream), ""]
    return [*lines, *_notes(result, stream), ""]


def _groups(table: Mapping[str, Any], stream: TextIO | None) -> list[list[str]]:
    lines = []
    for group in table["groups"]:
        hidden = group["rows"].count(None)
        if not group["shown_rows"] and not hidden:
            continue
        figures = [_score(group[key]) for key in ("shown_recall", "all_recall")]
        figures.append("n/a" if group["gap"] is None else f"{group['gap']:+.3f}")
        figures += [_score(group[key]) for key in ("shown_ece", "all_ece", "shown_brier", "all_brier")]
        classes = f"{group['classes']}" + (f", {hidden} hidden" if hidden else "")
        lines.append([shorten(plain(group["group"], stream), 24), f"{group['shown_rows']:,}", classes, *figures])
    return lines


def _score(value: float | None) -> str:
    return score(math.nan if value is None else value)


def _worst(row: RowResult, tables: list[Mapping[str, Any]], stream: TextIO | None) -> list[str]:
    found = worst_subgroup(tables)
    if found is None:
        return [f"{row.label}: no subgroup has enough people to be shown"]
    name, group = found
    text = (
        f"{row.label}, worst subgroup: {plain(name, stream)} {plain(group['group'], stream)}, recall "
        f"{score(group['shown_recall'])} where all rows of these classes have {score(group['all_recall'])}"
    )
    site = row.final.get("worst_domain_macro_recall")
    text += "" if site is None else f"; worst site: {score(site)}"
    return textwrap.wrap(text, WIDTH - 1, subsequent_indent="  ")


def _notes(result: RunResult, stream: TextIO | None) -> list[str]:
    found: JsonObject = result.subgroups
    text = "recall: mean over the classes that the group has and that are shown; of all: all rows of these classes."
    if found["floor"] is not None:
        text += (
            f" A cell of fewer than {found['floor']} people is hidden, and with it others from which it could be"
            " computed (docs/subgroups.md)."
        )
    if lost := [result.class_names[c] for c in found["hidden_of_sites"]]:
        text += f" Scores of single sites, and those without each site, are without {', '.join(lost)} for this reason."
    if found["without"]:
        text += f" Not counted: {', '.join(found['without'])}, whose counts were withheld or do not fit its matrix."
    return textwrap.wrap(plain(text, stream), WIDTH - 1, break_on_hyphens=False)


__all__ = ["subgroup_lines"]
