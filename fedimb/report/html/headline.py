"""The first sentences of the page: which row finds most minority rows, and whether it could be chance."""

import math
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from fedimb.report.html.numbers import HEADLINE, Mean, Row, difference, ranked, shown


def sentence(rows: list[Row], control: str | None, verdicts: Mapping[str, str] = MappingProxyType({})) -> str:
    """The result of a setting in one or two sentences; rows with missing runs are not compared.

    Args:
        rows: rows of one setting.
        control: label of the row that others are compared with, or None.
        verdicts: result of the Holm-corrected tests of each row's minority recall: ``better``, ``worse`` or empty.
    """
    other = "any other row"
    if any(row.bound for row in rows):
        rows, other = [row for row in rows if not row.bound], "any other row trained by phases"
        control = control if any(row.control for row in rows) else None
    order = ranked(rows)
    if not order:
        return "No row has a minority recall from all of its runs."
    first, mean = order[0], order[0].mean(HEADLINE)
    if len(rows) == 1:
        return f"{first.label} finds {_amount(mean)} of the minority classes' test rows."
    ties = [row.label for row in order if row.mean(HEADLINE).value == mean.value]
    if len(ties) > 1:
        text = f"{_listed(ties)} find the same share of the minority: {_amount(mean)}."
    else:
        text = f"{first.label} finds more of the minority than {other}: {_amount(mean)}."
    return f"{text} {_against(order, control, verdicts)}".strip()


def _against(order: list[Row], control: str | None, verdicts: Mapping[str, str]) -> str:
    first = order[0]
    if control is None:
        return f"Next is {order[1].label} with {_amount(order[1].mean(HEADLINE))}." if len(order) > 1 else ""
    if first.label == control:
        return f"That is the control: no other row finds more than {control}."
    rival = next((row for row in order if row.label == control), None)
    if rival is None:
        return f"The control, {control}, has no complete result to compare with."
    gap = difference(first, rival)
    if math.isnan(gap.value):
        return f"It shares no seed with the control, {control}."
    text = f"That is {shown(HEADLINE, gap.value)} more than the control, {control}"
    if math.isnan(gap.half):
        return f"{text}; one seed says nothing of chance."
    low, high = gap.value - gap.half, gap.value + gap.half
    text += f" (95 % interval of the paired difference {low:+.3f} to {high:+.3f}, {gap.seeds} seeds)"
    if low <= 0 <= high:
        return f"{text}; the interval holds 0, so it may be chance."
    if verdicts.get(first.label) == "":
        return f"{text}; corrected for the number of rows tested, these seeds do not show it (see Statistics)."
    return f"{text}."


def missing(settings: Mapping[str, list[Row]]) -> str:
    """Which rows lack results, how many and why (with seeds if there is only one setting); or empty."""
    rows = [row for own in settings.values() for row in own if not row.complete]
    if len(settings) == 1:
        parts = [f"{row.label}: {row.trouble}" for row in rows]
    else:
        counts: dict[str, Counter[str]] = {}
        for row in rows:
            counts.setdefault(row.label, Counter()).update(r.status for r in row.results if r.status != "finished")
        parts = [f"{label}: {', '.join(f'{n} {what}' for what, n in sorted(c.items()))}" for label, c in counts.items()]
    return f"Not compared where runs are missing: {'; '.join(parts)}." if parts else ""


def _amount(mean: Mean) -> str:
    spread = "" if math.isnan(mean.half) else f" ± {mean.half:.3f}"
    over = f" (mean of {mean.seeds} seeds)" if mean.seeds > 1 else ""
    return f"{shown(HEADLINE, mean.value)}{spread}{over}"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
