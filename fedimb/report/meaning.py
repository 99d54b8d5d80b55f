"""One sentence at the end of a study that says what it means; of a run: `fedimb.report.run_meaning`."""

from collections import Counter
from collections.abc import Sequence

from fedimb.evaluation.significance import seeds_needed
from fedimb.report.run_meaning import listed
from fedimb.study.over_sets import OverSets
from fedimb.study.references import REFERENCES
from fedimb.study.results import COLUMNS, StudyResults
from fedimb.study.statistics import Comparison, Statistics
from fedimb.text import plain

_MOST_NAMED = 4  # rows named in a sentence; more are counted


def study_sentence(found: Statistics) -> str:
    """Which rows differ significantly from the control in the study's first score, and on how many seeds."""
    tested = {own for (_, own, _), c in found.comparisons.items() if c.test.n}
    score = next((own for own in found.scores if own in tested), found.scores[0])
    comparisons = [c for (_, own, _), c in found.comparisons.items() if own == score]
    if not comparisons:
        return _uncompared(found, score)
    control, name = plain(comparisons[0].control, None), COLUMNS[score]
    pairs = [c.test.n for c in comparisons]
    on = f"On {_range(pairs)} seed{'s' * (pairs != [1] * len(pairs))}"
    parts = []
    for verdict in ("better", "worse"):
        if rows := _named(comparisons, verdict):
            has = "has" if len(rows) == 1 else "have"
            parts.append(f"{listed(rows)} {has} significantly {verdict} {name} than {control}")
    if parts:
        if others := {c.label for c in comparisons} - {c.label for c in comparisons if c.verdict}:
            does = "does" if len(others) == 1 else "do"
            parts.append(f"{_rows(len(others))} {does} not differ significantly from it")
        return f"{on}, {'; '.join(parts)}{_incomplete(comparisons)}."
    if all(n < 2 for n in pairs):
        return f"{on}, nothing can be said about significance: give several seeds{_incomplete(comparisons)}."
    return f"{on}, no row differs significantly from {control} in {name}{_reach(found, comparisons)}."


def bar_sentence(study: StudyResults, found: Statistics, over: OverSets | None) -> str:
    """What the study's own rows are against the bar, over data sets if there are several; empty without a bar.

    ``Over 12 data sets, in macro recall against the bar: focal is undecided; mine beats it.``
    """
    if not study.bars:
        return ""
    score, count = study.primary, study.bars[0].min_count
    own = [label for label in study.labels if label not in REFERENCES]
    parts = []
    for label in own:
        if over is not None:
            said = [v.said for v in over.verdicts if (v.score, v.label, v.min_count) == (score, label, count)]
            text = _verdict_text(said[0]) if said else ""
        else:
            several = Counter(
                a.said for a in found.against_bar if (a.score, a.label, a.min_count) == (score, label, count)
            )
            settings = sum(several.values())
            text = ", ".join(
                _verdict_text(word) + (f" in {n} of {settings} settings" if settings > 1 else "")
                for word, n in several.most_common()
            )
        parts += [f"{plain(label, None)} {text}"] if text else []
    if not parts:
        return ""
    if len(parts) > _MOST_NAMED:
        parts = [*parts[: _MOST_NAMED - 1], f"{len(parts) - _MOST_NAMED + 1} other rows are in the tables"]
    where = "Within one data set each" if over is None else f"Over {len(over.data_sets)} data sets"
    return f"{where}, in {COLUMNS[score]} against the bar: {'; '.join(parts)}."


def _verdict_text(said: str) -> str:
    return {"beats": "beats it", "level": "is level", "below": "is below", "undecided": "is undecided"}[said]


def _reach(found: Statistics, comparisons: Sequence[Comparison]) -> str:
    """Why the lack of a significant difference may mean little."""
    rows = Counter(c.setting for c in comparisons)
    needed = max(seeds_needed(count, round(1 - found.level, 12)) for count in rows.values())
    if max(c.test.n for c in comparisons) < needed:
        return f", but no difference could be on fewer than {needed} seeds{_incomplete(comparisons)}"
    return _incomplete(comparisons)


def _uncompared(found: Statistics, score: str) -> str:
    """For a study of one row, or without a control."""
    summaries = [s for (_, own, _), s in found.summaries.items() if own == score and s.values]
    seeds = _range([s.n for s in summaries]) if summaries else "0"
    on = f"On {seeds} seed{'' if seeds == '1' else 's'}"
    if len(found.labels) > 1:
        return f"{on}, rows were not tested against each other, as none is the control: nothing here is significant."
    return f"{on}, there is one row and nothing to compare it with: nothing can be said about significance."


def _named(comparisons: Sequence[Comparison], verdict: str) -> list[str]:
    """Rows with that verdict, with the effect, or with the number of settings where there are several."""
    settings = {c.setting for c in comparisons}
    own: dict[str, list[Comparison]] = {}
    for c in comparisons:
        if c.verdict == verdict:
            own.setdefault(c.label, []).append(c)
    names = [
        f"{plain(label, None)} ({cs[0].test.effect:+.3f})"
        if len(settings) == 1
        else f"{plain(label, None)} (in {len(cs)} of {len(settings)} settings)"
        for label, cs in own.items()
    ]
    if len(names) > _MOST_NAMED:
        names = [*names[: _MOST_NAMED - 1], f"{len(names) - _MOST_NAMED + 1} other rows"]
    return names


def _incomplete(comparisons: Sequence[Comparison]) -> str:
    lost = {c.label for c in comparisons if c.test.missing}
    return f"; nothing is claimed of {_rows(len(lost))} with missing runs" if lost else ""


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
