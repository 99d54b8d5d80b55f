"""A study's results as the plain-text tables that runs have: one per setting."""

from typing import TextIO

from fedimb.report.groups import RunRow
from fedimb.report.table import comparison_table
from fedimb.study.results import Result, StudyResults


def study_table(study: StudyResults, stream: TextIO | None = None) -> str:
    """`comparison_table` of every setting, under its name where there are several."""
    parts = []
    for setting in study.settings:
        rows = [_row(r) for label in study.labels for r in study.of(setting, label)]
        heading = f"{setting}\n" if len(study.settings) > 1 else ""
        parts.append(heading + comparison_table(rows, stream))
    return "\n\n".join(parts)


def _row(result: Result) -> RunRow:
    return {
        "label": result.label,
        "seed": result.seed,
        "metrics": result.scores,
        "bytes": int(result.score("up_bytes") + result.score("down_bytes")) if result.status == "finished" else 0,
        "seconds": result.score("client_seconds"),
        "status": result.status,
    }
