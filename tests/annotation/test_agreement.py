import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from fedimb.annotation.agreement import kappa, settle
from fedimb.annotation.returned import ReaderAnswer
from fedimb.annotation.vocabulary import CANNOT_JUDGE, Vocabulary

WORDS = Vocabulary(("a", "b", "c"))
IDS = [f"w-{i:05d}" for i in range(1, 6)]
X = CANNOT_JUDGE


def answers(reader, *labels):
    pairs = enumerate(zip(IDS, labels, strict=False), start=2)
    return [ReaderAnswer(f"{reader}.csv line {line}", reader, id, label) for line, (id, label) in pairs]


def by_hand(pairs):
    """(observed - expected) / (1 - expected), from the table of both readers' answers."""
    table = np.zeros((3, 3))
    for a, b in pairs:
        table[a, b] += 1
    table /= table.sum()
    expected = float(table.sum(1) @ table.sum(0))
    return math.nan if expected == 1 else (float(np.trace(table)) - expected) / (1 - expected)


def test_kappa_of_the_textbook():
    pairs = [(0, 0)] * 20 + [(0, 1)] * 5 + [(1, 0)] * 10 + [(1, 1)] * 15
    assert kappa(pairs) == pytest.approx(0.4)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_kappa_by_hand_and_by_scikit_learn(pairs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = cohen_kappa_score(*zip(*pairs, strict=True))
    assert kappa(pairs) == pytest.approx(by_hand(pairs), nan_ok=True)
    assert kappa(pairs) == pytest.approx(library, nan_ok=True)


@pytest.mark.parametrize("pairs", [[], [(1, 1)], [(2, 2)] * 5])
def test_kappa_that_is_not_defined_is_nan(pairs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(kappa(pairs))


def test_one_reader():
    outcome = settle(IDS, answers("anna", 0, X, None, 2), 1, WORDS)
    assert outcome.settled == {IDS[0]: 0, IDS[1]: X, IDS[3]: 2}
    assert outcome.missing == [IDS[2], IDS[4]]
    assert outcome.problems == outcome.differences == []
    assert math.isnan(outcome.kappa)


def test_one_readers_files_add_up_and_duplicates_may_agree():
    given = [*answers("anna", 0, 1, None), *answers("bert", 0, None, 2)]
    outcome = settle(IDS[:3], given, 1, WORDS)
    assert outcome.settled == dict(zip(IDS[:3], (0, 1, 2), strict=True))
    assert outcome.problems == outcome.missing == []


def test_a_duplicate_that_differs_is_told_with_both_places():
    given = [*answers("anna", 0, 1), *answers("bert", 0, X)]
    outcome = settle(IDS[:2], given, 1, WORDS)
    assert outcome.problems == [
        "bert.csv line 3 (w-00002): 'cannot judge', but anna.csv line 3 says 'b'; keep one of the two"
    ]


def test_two_readers():
    given = [*answers("anna", 0, 1, X, 2, X), *answers("bert", 0, 2, 1, None, X)]
    outcome = settle(IDS, given, 2, WORDS)
    assert outcome.settled == {IDS[0]: 0, IDS[4]: X}
    assert [(d.id, d.readers, d.labels) for d in outcome.differences] == [
        (IDS[1], ("anna", "bert"), (1, 2)),
        (IDS[2], ("anna", "bert"), (X, 1)),
    ]
    assert outcome.missing == [IDS[3]]
    assert outcome.both == 2
    assert outcome.kappa == pytest.approx(by_hand([(0, 0), (1, 2)]))


def test_adjudication_decides_where_readers_differ_and_nowhere_else():
    given = [*answers("anna", 0, 1, 2), *answers("bert", 0, 2, 0), *answers("adjudication", 1, 1, X)]
    outcome = settle(IDS[:3], given, 2, WORDS)
    assert outcome.settled == {IDS[0]: 0, IDS[1]: 1, IDS[2]: X}
    assert outcome.differences == []
    assert outcome.readers == ("anna", "bert")


def test_one_of_two_readers_settles_nothing():
    outcome = settle(IDS, answers("anna", 0, 1, 2, 0, 1), 2, WORDS)
    assert (outcome.settled, outcome.missing) == ({}, IDS)
    assert settle(IDS, [], 2, WORDS).missing == IDS


def test_a_third_reader_is_told():
    given = [*answers("anna", 0), *answers("bert", 0), *answers("carl", 1)]
    outcome = settle(IDS[:1], given, 2, WORDS)
    assert "answers of 3 readers (anna, bert, carl)" in outcome.problems[0]
