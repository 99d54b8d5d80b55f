"""A run's recall by phase, where classes arrive in phases: a table after each phase, what was forgotten, a picture."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from fedimb.contracts.class_incremental import OF_PHASE
from fedimb.evaluation.phases import RECALL_OF
from fedimb.plain import JsonObject
from fedimb.report.html.pictures import COLOURS, figure, tidy
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.text import WIDTH, aligned, plain, score

AT_ONCE = "phases were not trained one after the other: all classes were trained at once"
_MOST_COLUMNS = 8


def trained_at_once(result: RunResult) -> bool:
    """Whether a run's data have phases, and no method trained by them: a bound of comparisons, no result of theirs."""
    scored = any(f"test/{name}".startswith(RECALL_OF) for row in result.rows for name in row.metrics)
    if result.phases or not scored:
        return False
    return not any(OF_PHASE in line["metrics"] for line in RunFolder(result.folder).metrics())


def phase_lines(result: RunResult, stream: TextIO | None = None) -> list[str]:
    """For each row a table: recall of every phase's classes after each phase, and their forgetting; then the classes.

    For a run that trained all phases at once a line that says so; empty for a run whose data have none. Of many phases
    the first and the last are shown.
    """
    found: JsonObject = result.phases
    if not found:
        return [f"{AT_ONCE}."] if trained_at_once(result) else []
    classes: list[list[int]] = found["classes"]
    shown, lines = _shown(len(classes)), list[str]()
    for row, one in found["rows"].items():
        cells = [[f"{plain(row, stream)}, recall of", *(f"phase {j + 1}" for j in shown)]]
        cells += [[f"after phase {k + 1}", *(_score(one["recall"][k][j]) for j in shown)] for k in _shown(len(classes))]
        lost = [*one["forgetting"], None]
        cells.append(["forgetting", *("" if j == len(classes) - 1 else _score(lost[j], signed=True) for j in shown)])
        lines += [*aligned(cells), f"mean forgetting {_score(one['mean_forgetting'], signed=True)}", ""]
    named = [", ".join(plain(result.class_names[c], stream) for c in classes[j]) for j in shown]
    for j, text in zip(shown, named, strict=True):
        lines += textwrap.wrap(f"phase {j + 1}: {text}", WIDTH - 1, subsequent_indent="  ", break_on_hyphens=False)
    if len(shown) < len(classes):
        lines.append(f"{len(classes) - len(shown)} phases between are not shown; result.json has all")
    about = (
        "recall: mean over a phase's classes on the test rows, among all classes; forgetting: the highest before the "
        "last phase minus that after it."
    )
    return [*lines, *textwrap.wrap(about, WIDTH - 1), ""]


def _shown(phases: int) -> list[int]:
    """Positions of the phases that a table has room for: all, or the first and the last."""
    half = _MOST_COLUMNS // 2
    return list(range(phases)) if phases <= _MOST_COLUMNS else [*range(half), *range(phases - half, phases)]


def _score(value: float | None, signed: bool = False) -> str:
    if value is None or math.isnan(value):
        return score(math.nan)
    return f"{value:+.3f}" if signed else score(value)


def phases_picture(panel: Mapping[str, Any]) -> bytes | None:
    """Recall of each phase's classes over the phases, from a panel's figures (`fedimb.serverapp.panels.phases_panel`):
    SVG, the same bytes again.

    None if it has no such figures: a square table, and classes for each of its columns.
    """
    from matplotlib import rc_context

    phases, table = panel.get("phases"), panel.get("recall")
    if not (isinstance(phases, list) and phases and isinstance(table, list) and len(table) == len(phases)):
        return None
    if any(not isinstance(row, list) or len(row) != len(phases) for row in table):
        return None
    made = figure(4.6, 2.8)
    axes = made.add_subplot()
    after = range(1, len(phases) + 1)
    for j, column in enumerate(_columns(table)):
        axes.plot(after, column, color=COLOURS[j % len(COLOURS)], marker="o", markersize=3, label=f"phase {j + 1}")
    axes.set_xlabel("after phase")
    axes.set_xticks(list(after))
    axes.set_ylim(-0.02, 1.02)
    if len(phases) <= _MOST_COLUMNS:
        axes.legend(frameon=False, fontsize=7)
    tidy(axes)
    with io.BytesIO() as file, rc_context({"svg.hashsalt": "fedimb", "svg.fonttype": "none"}):
        made.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()


def _columns(table: Sequence[Sequence[float | None]]) -> list[list[float]]:
    return [[math.nan if (value := row[j]) is None else float(value) for row in table] for j in range(len(table))]
