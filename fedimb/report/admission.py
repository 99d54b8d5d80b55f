"""What a run's server did not use, alarms, a simulated attack, and the scores without each site in turn, as text."""

from typing import Any, TextIO

from fedimb.evaluation.metrics import scores
from fedimb.rundir.result import RowResult, RunResult, untrained_text
from fedimb.text import WIDTH, aligned, plain, score, shorten

_LINES = 10
_MOST = 20  # attackers named


def left_out_lines(result: RunResult, stream: TextIO | None = None) -> list[str]:
    """A line for each reply that was left out, with site, record, field and reason, and for each site set aside; one
    for sites that no score is of."""
    untrained = [shorten(plain(untrained_text(result.untrained), stream), WIDTH)] if result.untrained else []
    if not result.left_out:
        return untrained
    lines = [*untrained, "replies left out, and sites set aside:"]
    for one in result.left_out[:_LINES]:
        who = one["site"] or f"client {one['client']}"
        what = f"{one['record']} {one['field']}".strip()
        text = f"  {who}, {one['where']}: {what + ' ' if what else ''}{one['reason']}"
        lines.append(shorten(plain(text, stream), WIDTH))
    if (more := len(result.left_out) - _LINES) > 0:
        lines.append(f"  and {more} more: left_out.jsonl in the run folder")
    return lines


def without_lines(result: RunResult, stream: TextIO | None = None) -> list[str]:
    """A table of the final scores without each site, below those of all: a site that made its matrix up stands out."""
    lines: list[str] = []
    for row in result.rows:
        found = result.without_site.get(row.label)
        if not found:
            continue
        keys = ("minority_recall", "macro_recall")
        table = [[f"{row.label}, without", "its rows", *(key.replace("_", " ") for key in keys)]]
        final = _over_shown(result, row) or row.final
        table.append(["no site", "", *(score(final[key]) for key in keys)])
        for site, own in found.items():
            table.append([shorten(plain(site, stream), 40), f"{own['rows']:.0f}", *(score(own[key]) for key in keys)])
        lines += [*aligned(table), ""]
    return lines


def _over_shown(result: RunResult, row: RowResult) -> dict[str, float] | None:
    """The row's final scores over the classes that are shown for single sites; None if all are."""
    hidden: Any = result.subgroups.get("hidden_of_sites")
    if not hidden:
        return None
    matrix = row.confusion.copy()
    matrix[hidden] = 0
    return scores(matrix, result.minority)


def alarm_lines(result: RunResult, stream: TextIO | None = None) -> list[str]:
    """A line for each class whose recall fell during the run, and one for who attacked in a simulation."""
    found = [(row.label, name, why) for row in result.rows for name, why in row.alarms.items()]
    lines = [f"  {label}, class {plain(name, stream)}: {why}" for label, name, why in found]
    lines = ["alarm, a class's recall fell:", *(shorten(line, WIDTH) for line in lines)] if lines else []
    if result.attack:
        clients: Any = result.attack["clients"]
        who = ", ".join(map(str, clients[:_MOST])) + (", ..." if len(clients) > _MOST else "")
        about = f"{result.attack['name']} by clients {who}, from round {result.attack['start']}"
        lines.append(f"simulated attack: {about}")
    return lines


__all__ = ["alarm_lines", "left_out_lines", "without_lines"]
