"""The most probable sequence, against all sequences; tables of transitions; which rows are one sequence."""

import re
from itertools import pairwise, product

import numpy as np
import pytest

from fedimb.errors import ConfigError, DataError
from fedimb.evaluation.temporal import read_transitions, sequences, viterbi

CHAIN = np.array([[0.7, 0.3, 0.0], [0.0, 0.6, 0.4], [0.1, 0.0, 0.9]])


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_best_of_all_sequences_and_takes_no_forbidden_step(seed):
    scores = np.random.default_rng(seed).dirichlet([0.5] * 3, size=6)

    def value(path):
        steps = [CHAIN[a, b] for a, b in pairwise(path)]
        return np.prod(scores[np.arange(6), path]) * np.prod(steps)

    best = max(product(range(3), repeat=6), key=value)
    found = viterbi(scores, CHAIN)
    assert tuple(found) == best
    assert all(CHAIN[a, b] > 0 for a, b in pairwise(found))


def test_transitions_that_prefer_nothing_leave_each_frames_own_class():
    scores = np.random.default_rng(0).dirichlet([1.0] * 4, size=50)
    assert (viterbi(scores, np.full((4, 4), 0.25)) == scores.argmax(axis=1)).all()
    assert viterbi(np.zeros((0, 4)), np.full((4, 4), 0.25)).tolist() == []


def test_a_score_of_0_forbids_nothing_and_long_films_do_not_underflow():
    scores = np.array([[1.0, 0.0]] * 3000)
    scores[1500] = [0.0, 1.0]
    only_stay = np.eye(2)
    assert set(viterbi(scores, only_stay)) == {0}
    assert viterbi(scores, np.full((2, 2), 0.5))[1500] == 1


def table(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    return tmp_path / "t.csv"


def test_a_table_is_read_by_name_and_scaled(tmp_path):
    path = table(tmp_path, ",b,a\nb,1,1\na,,4\n")
    assert read_transitions(path, ("a", "b")).tolist() == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (",a,b\na,1,0\n", "the first column must name each of the run's 2 classes once"),
        (",a,c\na,1,0\nb,1,1\n", "'c' in the first row is not a class of the run"),
        (",a,b\na,1,-2\nb,1,1\n", "'-2' from a to b: give a number of at least 0"),
        (",a,b\na,1,x\nb,1,1\n", "'x' from a to b"),
        (",a,b\na,1,0\nb,0,0\n", "no class may follow 'b'"),
        ("", "the first row must name"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, says):
    with pytest.raises(DataError, match=says):
        read_transitions(table(tmp_path, text), ("a", "b"))
    with pytest.raises(DataError, match="cannot be read"):
        read_transitions(tmp_path / "none.csv", ("a", "b"))


@pytest.mark.parametrize(
    ("ids", "pattern", "says"),
    [
        (["f_1.png", "f_10.png", "f_2.png"], None, "'f_2.png' comes after 'f_10.png'"),
        (["a/f1_9", "b/f1_10", "b/f1_9b"], "^([^/]+)/", "'b/f1_9b' comes after 'b/f1_10'"),
        (["film.dcm#2", "film.dcm#1"], None, "'film.dcm#1' comes after"),
        (["9" * 5000, "1" + "0" * 4999], None, "fill their numbers with zeros"),
    ],
)
def test_frames_whose_numbers_fall_are_refused(ids, pattern, says):
    with pytest.raises(DataError, match=re.escape(says)):
        list(sequences(ids, len(ids), pattern))


def test_frames_in_the_order_of_their_numbers_pass():
    ids = ["a.png", "a1.png", "a02.png", "a2b.png", "a10.png", "b1.png", "b1.png#9", "b1.png#10", "b2.png#1"]
    assert list(sequences(ids, len(ids), None)) == [slice(0, len(ids))]
    assert list(sequences(["x/10", "y/2"], 2, "^([^/]+)/")) == [slice(0, 1), slice(1, 2)]


def test_rows_are_cut_into_sequences_by_their_ids():
    ids = ["one/1", "one/2", "two/1", "three/1", "three/2"]
    assert list(sequences(ids, 5, r"^([^/]+)/")) == [slice(0, 2), slice(2, 3), slice(3, 5)]
    assert list(sequences(None, 5, None)) == [slice(0, 5)]
    assert list(sequences([], 0, "x")) == list(sequences(None, 0, None)) == []
    with pytest.raises(DataError, match="sequence 'one' comes back at the id 'one/3'"):
        list(sequences([*ids, "one/3"], 6, r"^([^/]+)/"))
    with pytest.raises(DataError, match="is not found in the id 'one/1'"):
        list(sequences(ids, 5, r"^\d"))
    for pattern, given, says in (("(", ids, "not a regular expression"), ("x", None, "these have none; give --id")):
        with pytest.raises(ConfigError, match=says):
            list(sequences(given, 5, pattern))
