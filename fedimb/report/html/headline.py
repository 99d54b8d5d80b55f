"""The first sentences of the page: who finds most of the minority, and whether that is more than chance."""

import math

from fedimb.report.html.numbers import HEADLINE, Mean, Row, difference, ranked, shown


def sentence(rows: list[Row], control: str | None) -> str:
    """What a setting says, in plain words; no claim where runs are too few or rows incomplete."""
    order = ranked(rows)
    out = [row for row in rows if not row.complete]
    words = _unfair(out)
    if not order:
        return f"No row has a minority recall from all of its runs. {words}".strip()
    first, mean = order[0], order[0].mean(HEADLINE)
    if len(rows) == 1:
        return f"{first.label} finds {_amount(mean)} of the minority classes' test rows. {words}".strip()
    ties = [row.label for row in order if row.mean(HEADLINE).value == mean.value]
    if len(ties) > 1:
        text = f"{_listed(ties)} find the same share of the minority: {_amount(mean)}."
    else:
        text = f"{first.label} finds most of the minority: {_amount(mean)}."
    return f"{text} {_against(order, control)} {words}".strip()


def _against(order: list[Row], control: str | None) -> str:
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
    return f"{text}; the interval holds 0, so it may be chance." if low <= 0 <= high else f"{text}."


def _unfair(rows: list[Row]) -> str:
    if not rows:
        return ""
    parts = [f"{row.label}: {row.trouble or 'no runs'}" for row in rows]
    more = f"; and {len(parts) - 4} more rows" if len(parts) > 4 else ""
    return f"Not compared, because runs are missing: {'; '.join(parts[:4])}{more}."


def _amount(mean: Mean) -> str:
    spread = "" if math.isnan(mean.half) else f" ± {mean.half:.3f}"
    over = f" (mean of {mean.seeds} seeds)" if mean.seeds > 1 else ""
    return f"{shown(HEADLINE, mean.value)}{spread}{over}"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
