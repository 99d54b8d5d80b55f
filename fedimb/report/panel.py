"""A finished run as text: a panel for each of its rows, and where its files are."""

import textwrap

from fedimb.report.admission import alarm_lines, left_out_lines, without_lines
from fedimb.report.phases import phase_lines
from fedimb.report.run_meaning import run_sentence
from fedimb.report.subgroups import subgroup_lines
from fedimb.report.table import result_panel
from fedimb.report.temperature import temperature_lines
from fedimb.rundir.result import RunResult
from fedimb.text import WIDTH


def panels(result: RunResult) -> str:
    """One panel per row (calibration), the run folder and how to load the model, and a sentence on what it means."""
    parts = [
        result_panel(
            {
                "label": row.label,
                "class_names": result.class_names,
                "train_counts": result.train_counts,
                "matrix": row.tested_matrix,
                "minority": result.minority,
                "last_k": row.metrics,
                # Of one model on rows of one class each the panel makes its own.
                "intervals": row.intervals if row.confusion.ndim == 3 or row.copies > 1 else {},
                "bytes": result.up_bytes + result.down_bytes,
                "seconds": result.seconds,
                "seed": result.seed,
                "status": "finished",
                "suspect": "; ".join(row.suspect.values()),
            }
        )
        for row in result.rows
    ]
    notes = [*phase_lines(result), *temperature_lines(result), *subgroup_lines(result), *without_lines(result)]
    notes += [*left_out_lines(result), *alarm_lines(result)]
    if notes:
        parts.append("\n".join(notes))
    where = f"run folder  {result.folder}\nmodel       fedimb.load_model({str(result.folder)!r})"
    return "\n\n".join([*parts, where, textwrap.fill(run_sentence(result), WIDTH)])
