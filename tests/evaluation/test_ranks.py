import math

import numpy as np
import pytest
from four_trees import TREES
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedimb.evaluation.ranks import critical_difference, friedman, rank_rows


@pytest.fixture(scope="module", autouse=True)
def posthocs():
    """Loaded once, outside the clock of any test."""
    return pytest.importorskip("scikit_posthocs")


NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]


def test_ranks_and_critical_difference_are_the_published_ones():
    ours = friedman(TREES, NAMES)
    assert ours.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert ours.critical_difference == pytest.approx(1.25, abs=0.005)
    assert friedman(TREES, NAMES, alpha=0.1).critical_difference == pytest.approx(1.12, abs=0.015)
    assert ours.settings == 14
    assert ours.note == ""
    # Demšar at .10: C4.5 differs from both with m (1.143 and 1.179 above 1.12), at .05 from neither
    assert ours.groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)
    at_ten = friedman(TREES, NAMES, alpha=0.1).groups
    assert at_ten == (("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5"))


def test_friedman_is_scipys_and_turns_with_the_scores():
    ours = friedman(TREES, NAMES)
    theirs = stats.friedmanchisquare(*TREES.T)
    assert (ours.chi2, ours.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    low = friedman(TREES, NAMES, lower_is_better=True)
    assert low.mean_ranks == pytest.approx(5 - ours.mean_ranks)
    assert low.p == pytest.approx(ours.p)


def test_nemenyi_by_its_formula_and_in_step_with_the_critical_difference():
    ours = friedman(TREES, NAMES)
    apart = np.abs(ours.mean_ranks[:, None] - ours.mean_ranks)
    q = apart / math.sqrt(4 * 5 / (6 * 14)) * math.sqrt(2)
    expected = np.where(np.eye(4) == 1, 1, stats.studentized_range.sf(q, 4, np.inf))
    assert ours.pairwise == pytest.approx(expected, abs=1e-6)
    assert ((ours.pairwise <= 0.05) == (apart >= ours.critical_difference)).all()


@pytest.mark.parametrize(
    ("k", "n", "cd"),
    # q_.05 of Demšar's table 5: 2.343 for 3, 2.569 for 4, 3.164 for 10
    [
        (13, 12, 5.27),
        (3, 10, 2.343 * math.sqrt(12 / 60)),
        (4, 14, 2.569 * math.sqrt(20 / 84)),
        (10, 8, 3.164 * math.sqrt(110 / 48)),
    ],
)
def test_critical_difference_of_published_tables(k, n, cd):
    assert critical_difference(k, n) == pytest.approx(cd, abs=0.005)


@pytest.mark.parametrize("shape", [(1, 5), (4, 2), (0, 3), (0, 0)])
def test_too_few_settings_or_rows_say_so_and_give_no_numbers(shape):
    ours = friedman(np.ones(shape), [str(k) for k in range(shape[1])])
    assert f"got {shape[0]} and {shape[1]}" in ours.note
    assert np.isnan([ours.chi2, ours.p, ours.critical_difference]).all()
    assert np.isnan(ours.mean_ranks).all()
    assert np.isnan(ours.pairwise).all()
    assert ours.groups == ()


def test_no_score_ranks_last_for_either_direction():
    scores = np.array([[0.9, np.nan, 0.1], [0.5, 0.6, np.inf], [np.nan, np.nan, 0.2]])
    assert friedman(scores, list("abc")).mean_ranks == pytest.approx(
        [(1 + 2 + 2.5) / 3, (3 + 1 + 2.5) / 3, (2 + 3 + 1) / 3]
    )
    assert friedman(scores, list("abc"), lower_is_better=True).mean_ranks == pytest.approx(
        [(2 + 1 + 2.5) / 3, (3 + 2 + 2.5) / 3, (1 + 3 + 1) / 3]
    )


def test_means_equal_but_for_rounding_share_their_ranks():
    assert rank_rows(np.array([[0.1 + 0.2, 0.3, 0.1]])).tolist() == [[2.5, 2.5, 1.0]]
    assert rank_rows(np.array([[0.0, 0.0], [1e9, 1e9 + 1]])).tolist() == [[1.5, 1.5], [1.0, 2.0]]


def test_all_equal_has_no_statistic_and_one_group():
    ours = friedman(np.ones((4, 3)), list("abc"))
    assert np.isnan([ours.chi2, ours.p]).all()
    assert ours.mean_ranks.tolist() == [2, 2, 2]
    assert ours.groups == (("a", "b", "c"),)


def test_groups_that_lie_inside_another_are_left_out():
    # mean ranks 1, 2, 3, 4, 5 exactly; CD = 2.728 sqrt(30 / (6 N))
    scores = np.tile(np.arange(5, 0, -1.0), (16, 1))
    assert friedman(scores, list("abcde")).critical_difference == pytest.approx(1.525, abs=0.001)
    assert friedman(scores, list("abcde")).groups == (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))
    assert friedman(scores[:9], list("abcde")).groups == (("a", "b", "c"), ("b", "c", "d"), ("c", "d", "e"))
    assert friedman(np.tile(scores, (4, 1)), list("abcde")).groups == ()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 8), st.integers(3, 6), st.integers(0, 1000))
def test_ranks_do_not_care_for_the_unit_or_the_order_of_methods(n, k, seed):
    rng = np.random.default_rng(seed)
    scores, order = rng.integers(0, 6, (n, k)) / 10, rng.permutation(k)
    names = [f"m{i}" for i in range(k)]
    ours = friedman(scores, names)
    moved = friedman(np.exp(3 * scores[:, order]), [names[i] for i in order])
    assert moved.mean_ranks == pytest.approx(ours.mean_ranks[order])
    assert moved.p == pytest.approx(ours.p, nan_ok=True)
    assert ours.mean_ranks.sum() == pytest.approx(k * (k + 1) / 2)


def test_the_critical_difference_keeps_its_level_under_the_null():
    """Nothing differs over 12 settings and 5 methods: the best and the worst are told apart in at most 5 % of cases."""
    rng, studies = np.random.default_rng(6), 2000
    ranks = rank_rows(rng.normal(size=(studies * 12, 5))).reshape(studies, 12, 5)
    spread = np.ptp(ranks.mean(1), axis=1)
    most = 0.05 + 4 * math.sqrt(0.05 * 0.95 / studies)
    assert 0.01 < (spread >= critical_difference(5, 12)).mean() <= most


@pytest.mark.parametrize(
    ("scores", "names", "words"),
    [(np.ones(3), list("abc"), "different names"), (np.ones((3, 3)), list("aab"), "different names")],
)
def test_what_cannot_be_ranked_is_refused(scores, names, words):
    with pytest.raises(ValueError, match=words):
        friedman(scores, names)
    with pytest.raises(ValueError, match="alpha"):
        friedman(np.ones((3, 3)), list("abc"), alpha=5)
