"""From readers' answers to one answer per item: duplicates, two readers, adjudication, kappa.

Cohen's kappa (Educational and Psychological Measurement 20, 1960) is computed by scikit-learn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from fedimb.annotation.returned import ADJUDICATION, ReaderAnswer
from fedimb.annotation.vocabulary import CANNOT_JUDGE, Vocabulary


@dataclass(frozen=True)
class Difference:
    """Two readers' different answers to one item; ``readers`` and ``labels`` in the same order."""

    id: str
    readers: tuple[str, str]
    labels: tuple[int, int]


@dataclass
class Outcome:
    """The combined answers of one cycle.

    Attributes:
        settled: class id or `CANNOT_JUDGE` by item: what would be imported.
        missing: items that still lack an answer (or one of two).
        differences: items on which two readers differ and nobody has decided.
        problems: mistakes, with place and remedy; nothing is imported while there are any.
        readers: names of the readers, sorted, without adjudication.
        both: number of items to which both readers gave a class.
        kappa: Cohen's kappa over those; NaN with one reader, without such items, or if both use one and the same class.
    """

    settled: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    readers: tuple[str, ...] = ()
    both: int = 0
    kappa: float = math.nan


def settle(
    ids: Sequence[str], given: Sequence[ReaderAnswer], readers: Literal[1, 2], vocabulary: Vocabulary
) -> Outcome:
    """Combine the answers to one cycle's items.

    With one reader, all files belong to that reader. With two, an item is settled when both agree, including on "cannot
    judge", or when the adjudication decides.

    Args:
        ids: the cycle's items.
        given: checked answers (`fedimb.annotation.returned`); empty ones are ignored.
    """
    outcome = Outcome()
    answers: dict[str, dict[str, ReaderAnswer]] = {}
    for one in given:
        if one.label is None:
            continue
        deciding = one.reader == ADJUDICATION and readers == 2
        own = answers.setdefault(one.reader if readers == 2 or deciding else "", {})
        before = own.setdefault(one.id, one)
        if before.label != one.label:
            assert before.label is not None
            outcome.problems.append(
                f"{one.place} ({one.id}): '{vocabulary.show(one.label)}', but {before.place} says "
                f"'{vocabulary.show(before.label)}'; keep one of the two"
            )
    decided = answers.pop(ADJUDICATION, {}) if readers == 2 else {}
    outcome.readers = tuple(sorted(answers))
    if readers == 1:
        own = answers.get("", {})
        outcome.settled = {id: _label(own[id]) for id in ids if id in own}
        outcome.missing = [id for id in ids if id not in own]
        return outcome
    if len(answers) > 2:
        outcome.problems.append(
            f"answers of {len(answers)} readers ({', '.join(outcome.readers)}), but 2 are expected; leave two files in "
            f"returned/, and decide differences in {ADJUDICATION}.csv"
        )
        return outcome
    first, second = [*(answers[name] for name in outcome.readers), {}, {}][:2]
    judged: list[tuple[int, int]] = []
    for id in ids:
        if id not in first or id not in second:
            outcome.missing.append(id)
            continue
        a, b = _label(first[id]), _label(second[id])
        if CANNOT_JUDGE not in (a, b):
            judged.append((a, b))
        if a == b:
            outcome.settled[id] = a
        elif id in decided:
            outcome.settled[id] = _label(decided[id])
        else:
            outcome.differences.append(Difference(id, (outcome.readers[0], outcome.readers[1]), (a, b)))
    outcome.both = len(judged)
    outcome.kappa = kappa(judged)
    return outcome


def kappa(pairs: Sequence[tuple[int, int]]) -> float:
    """Cohen's kappa of (first, second) class ids; NaN without pairs, or if agreement by chance is certain."""
    if not pairs or len({label for pair in pairs for label in pair}) == 1:
        return math.nan
    from sklearn.metrics import cohen_kappa_score

    first, second = zip(*pairs, strict=True)
    return float(cohen_kappa_score(first, second))


def _label(given: ReaderAnswer) -> int:
    assert given.label is not None
    return given.label
