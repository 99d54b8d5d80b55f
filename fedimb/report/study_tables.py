"""A study's results as plain-text tables, one per setting."""

import textwrap
from typing import TextIO

from fedimb.report.groups import RunRow
from fedimb.report.table import comparison_table
from fedimb.study.results import BOUNDS, FINAL_ROUND, Result, StudyResults
from fedimb.study.tau_order import order_sentence
from fedimb.text import WIDTH, plain


def study_table(study: StudyResults, stream: TextIO | None = None) -> str:
    """`comparison_table` of every setting, with its name if there are several.

    Below them, where rows are not on the same terms: what was done about it, or how they differ; where rows are scored
    at tau 1 and at their own temperature: whether that changes their order.
    """
    parts = []
    for setting in study.settings:
        rows = run_rows(study, setting)
        heading = f"{setting}\n" if len(study.settings) > 1 else ""
        parts.append(heading + comparison_table(rows, stream, study.bounds(setting)))
    for heading in (FINAL_ROUND, BOUNDS):
        if heading in study.facts:
            parts.append(textwrap.fill(plain(f"{heading}: {study.facts[heading]}", stream), WIDTH))
    if sentence := order_sentence(study):
        parts.append(textwrap.fill(plain(sentence, stream), WIDTH))
    return "\n\n".join(parts)


def run_rows(study: StudyResults, setting: str | None = None) -> list[RunRow]:
    """The results of a setting (default: the first) in the format of tables and pictures."""
    setting = next(iter(study.settings)) if setting is None else setting
    return [run_row(r) for label in study.labels for r in study.of(setting, label)]


def run_row(result: Result) -> RunRow:
    """A result in the format of tables and pictures; its seconds are the clients'."""
    return {
        "label": result.label,
        "seed": result.seed,
        "metrics": result.scores,
        "bytes": int(result.score("up_bytes") + result.score("down_bytes")) if result.status == "finished" else 0,
        "seconds": result.score("client_seconds"),
        "status": result.status,
        "suspect": result.suspect,
    }
