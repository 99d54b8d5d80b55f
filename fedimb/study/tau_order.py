"""Whether the order of rows depends on the strength of the shift: rows at tau 1 and at their own temperature.

Rules that ask for hard rows train surer models, so a table at tau 1 partly ranks over-confidence. Two rows belong
together if they are scores of one run, one at tau = 1 and one at the temperature found on held-out rows. They are
compared in macro recall; minority recall alone must never choose a tau, since any push raises it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedimb.study.results import Result, StudyResults

SCORE = "macro_recall"
RULES = ("temperature", "temperature_one_fold")
_MOST_NAMED = 3


@dataclass(frozen=True)
class Pair:
    """A trained row at tau 1 and at its own temperature, in one setting.

    Attributes:
        setting: its name.
        label: row at tau 1.
        own_label: row at its own temperature.
        at_one, at_own: macro recall, mean over the seeds that both have.
        taus: the temperatures found, by seed.
    """

    setting: str
    label: str
    own_label: str
    at_one: float
    at_own: float
    taus: tuple[float, ...]


def tau_pairs(study: StudyResults) -> list[Pair]:
    """The pairs of a study, in the order of its settings and rows."""
    found: dict[tuple[str, str, str], list[tuple[Result, Result]]] = {}
    for setting in study.settings:
        own = [r for label in study.labels for r in study.of(setting, label) if r.status == "finished"]
        at_own = {(str(r.folder), r.seed): r for r in own if r.tau_rule in RULES and r.folder is not None}
        for one in own:
            other = at_own.get((str(one.folder), one.seed))
            if one.tau == 1 and not one.tau_rule and other is not None:
                found.setdefault((setting, one.label, other.label), []).append((one, other))
    return [
        Pair(
            *key,
            float(np.mean([one.score(SCORE) for one, _ in runs])),
            float(np.mean([other.score(SCORE) for _, other in runs])),
            tuple(other.tau for _, other in runs),
        )
        for key, runs in found.items()
    ]


def order_sentence(study: StudyResults) -> str:
    """One sentence: whether the order of rows at tau 1 is that at their own temperatures; empty without pairs."""
    pairs = tau_pairs(study)
    if not pairs:
        return ""
    settings = list(dict.fromkeys(pair.setting for pair in pairs))
    changed = {}
    for setting in settings:
        own = [pair for pair in pairs if pair.setting == setting]
        if moved := _moved(own):
            changed[setting] = moved
    most = max(sum(pair.setting == setting for pair in pairs) for setting in settings)
    if most < 2:
        return (
            "In macro recall one row is scored at tau 1 and at its own temperature: an order of rows takes two such "
            "rows."
        )
    where = "" if len(settings) == 1 else f" in {len(settings) - len(changed)} of {len(settings)} settings"
    if not changed:
        every = "" if len(settings) == 1 else " in every setting"
        return f"In macro recall the order of {most} rows at tau 1 and at their own temperature is the same{every}."
    parts = []
    for setting, moved in changed.items():
        named = "; ".join(f"{up} passes {down}" for up, down in moved[:_MOST_NAMED])
        more = f" and {len(moved) - _MOST_NAMED} more" if len(moved) > _MOST_NAMED else ""
        parts.append((f"{setting}: " if len(settings) > 1 else "") + named + more)
    same = f"; it is the same{where}" if where else ""
    return (
        f"In macro recall the order of rows changes from tau 1 to their own temperature ({'. '.join(parts)}){same}: a "
        "ranking at tau 1 is one of tau 1."
    )


def _moved(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    """(row that is ahead at its own temperature, row that was ahead at tau 1), for each two that change places."""
    found = []
    for i, one in enumerate(pairs):
        for other in pairs[i + 1 :]:
            before, after = one.at_one - other.at_one, one.at_own - other.at_own
            if before < 0 < after:
                found.append((one.label, other.label))
            elif after < 0 < before:
                found.append((other.label, one.label))
    return found
