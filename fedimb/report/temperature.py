"""What a run found on held-out rows, as text: the strength of post-hoc correction and the curve behind it."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from fedimb.report.html.pictures import COLOURS, FAINT, figure, tidy
from fedimb.rundir.result import TAU_CURVE, RunResult, TemperatureCurve
from fedimb.text import aligned, plain

_AROUND = 3  # temperatures shown on each side of the least log loss


def temperature_lines(result: RunResult, stream: TextIO | None = None) -> list[str]:
    """For each rule its temperature, the rows, and the log loss around it; what the trainings without a fold cost."""
    found = result.temperature
    if not found:
        return []
    lines: list[str] = []
    for rule, one in found["rules"].items():
        edge = ", at the end of the range: the least may lie beyond" if one["at_edge"] else ""
        lines.append(f"temperature, {_words(rule, one)}: {one['tau']:.2f}{edge}")
        lines += [f"  {line}" for line in aligned(_curve(one["temperatures"], one["log_loss"], one["tau"]))]
    if found["never_held_out"]:
        named = ", ".join(plain(name, stream) for name in found["never_held_out"])
        lines.append(f"  never held out, since too few rows are left to train on: {named}")
    if cost := found["cost"]:
        sent = (cost["up_bytes"] + cost["down_bytes"]) / 1e6
        lines.append(
            f"  trainings without a fold: {sent:,.2f} MB and {cost['steps']:,.0f} steps, beside those of the run"
        )
        lines.append(f"  scores over tau, on this checkpoint: artifacts/{TAU_CURVE}")
    return lines


def _words(rule: str, one: TemperatureCurve) -> str:
    rows = f"{one['rows']:,} held-out rows"
    if rule == "validation":
        return f"final model on {one['rows']:,} validation rows"
    if rule == "oracle_pool":
        return f"oracle: {one['folds']} models on unlabelled rows, {one['rows']:,} in all, with labels that nobody has"
    return f"{rows} of {one['folds']} folds" if one["folds"] > 1 else f"{rows} of one fold"


def _curve(temperatures: Sequence[float], losses: Sequence[float], tau: float) -> list[list[str]]:
    """Two lines: temperatures around the least, and the mean log loss there."""
    at = min(range(len(temperatures)), key=lambda i: abs(temperatures[i] - tau))
    shown = range(max(0, at - _AROUND), min(len(temperatures), at + _AROUND + 1))
    return [
        ["T", *(f"{temperatures[i]:.2f}" for i in shown)],
        ["log loss", *(f"{losses[i]:.4f}" for i in shown)],
    ]


def tau_picture(panel: Mapping[str, Any]) -> bytes | None:
    """Scores over tau from the figures of a panel (`fedimb.serverapp.panels.tau_panel`): SVG, the same bytes again.

    None if it has no such figures, all lists of one length.
    """
    from matplotlib import rc_context

    taus, curves, found = panel.get("tau"), panel.get("scores"), panel.get("found")
    if not (isinstance(taus, list) and taus and isinstance(curves, dict) and isinstance(found, dict)):
        return None
    if any(not isinstance(curve, list) or len(curve) != len(taus) for curve in curves.values()):
        return None
    made = figure(4.6, 2.8)
    axes = made.add_subplot()
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        axes.plot(taus, curve, color=colour, label=str(name).replace("_", " "))
    for tau in (1.0, *found.values()):
        axes.axvline(tau, color=FAINT, linewidth=1, zorder=0)
    axes.set_xlabel("tau")
    axes.legend(frameon=False)
    tidy(axes)
    with io.BytesIO() as file, rc_context({"svg.hashsalt": "fedimb", "svg.fonttype": "none"}):
        made.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()
