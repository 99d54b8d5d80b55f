"""Decision rules: what is predicted, what a threshold promises and keeps, on hand-made scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.evaluation.thresholds import (
    ABSTAINED,
    DecisionRule,
    choose,
    decide,
    decide_labels,
    f1_threshold,
    recall_threshold,
)

SCORES = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.1, 0.1, 0.8]])


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (DecisionRule(), [0, 0, 2]),
        (DecisionRule(abstain_below=0.5), [0, ABSTAINED, 2]),
        (DecisionRule(abstain_below=0.7), [0, ABSTAINED, 2]),  # at the limit is not below it
        (DecisionRule(thresholds={1: 0.2}), [1, 1, 2]),
        (DecisionRule(thresholds={1: 0.3, 2: 0.2}), [0, 2, 2]),  # .25 / .2 is more than .35 / .3
        (DecisionRule(thresholds={0: 0.5}), [0, 1, 2]),  # below its threshold the highest score does not count
        (DecisionRule(thresholds={0: 0.5, 1: 0.5, 2: 0.5}), [0, ABSTAINED, 2]),
    ],
)
def test_what_is_predicted(rule, wanted):
    assert decide(SCORES, rule).tolist() == wanted


def test_of_several_labels_each_class_has_its_own_threshold():
    scores = np.array([[0.5, 0.1, 0.9]])
    assert decide_labels(scores, DecisionRule()).tolist() == [[False, False, True]]
    assert decide_labels(scores, DecisionRule(thresholds={0: 0.5, 1: 0.2, 2: 0.95})).tolist() == [[True, False, False]]


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60),
    st.integers(0, 2**60 - 1),
    st.sampled_from([0.1, 0.5, 0.6, 0.8, 0.9, 0.95, 1.0]),
)
def test_the_threshold_keeps_the_recall_and_no_higher_one_does(scores, flags, recall):
    scores = np.array(scores)
    positive = np.array([bool(flags >> i & 1) for i in range(len(scores))])
    positive[0] = True
    limit = recall_threshold(scores, positive, recall)
    held = scores[positive]
    assert (held >= limit).mean() >= recall - 1e-9
    assert (held > limit).mean() < recall


def test_best_f1_is_that_of_the_whole_grid_and_a_rare_class_may_go_lower():
    rng = np.random.default_rng(0)
    positive = rng.random(500) < 0.2
    scores = np.clip(0.3 * positive + rng.random(500) * 0.6, 0, 1)
    limit = f1_threshold(scores, positive)

    def f1(t):
        said = scores >= t
        return 2 * (said & positive).sum() / (said.sum() + positive.sum())

    assert f1(limit) == max(f1(t) for t in np.round(np.arange(0.1, 0.955, 0.01), 2))
    rare = np.zeros(500, bool)
    rare[:4] = True
    assert f1_threshold(np.where(rare, 0.07, 0.02), rare) == 0.05
    common = np.zeros(500, bool)
    common[:5] = True  # 1 %: not below it
    assert f1_threshold(np.where(common, 0.07, 0.02), common) == 0.1


def test_what_is_reached_is_that_of_the_whole_rule():
    labels = np.array([0, 1, 2])
    chosen = choose(SCORES, labels, [1, 2], recall=1.0, chosen_on="three rows")
    assert chosen.rule.thresholds == {1: 0.35, 2: 0.8}
    assert [(one.recall, one.positives, one.precision) for one in chosen.achieved] == [(1.0, 1, 1.0), (1.0, 1, 1.0)]
    assert chosen.achieved[0].interval == pytest.approx((0.2065, 1.0), abs=1e-4)
    both = choose(np.array([[0.5, 0.5], [0.6, 0.4]]), np.array([0, 1]), [0, 1], recall=1.0, chosen_on="two rows")
    assert [one.recall for one in both.achieved] == [0.0, 0.0]  # each class takes the other's row
    with pytest.raises(ValueError, match="class 2 has no row"):
        choose(SCORES, np.array([0, 1, 1]), [2], 0.9, "")


@pytest.mark.parametrize("bad", [{"abstain_below": 0.0}, {"abstain_below": 1.1}, {"thresholds": {0: -0.1}}])
def test_limits_out_of_range_and_two_rules_are_refused(bad):
    with pytest.raises(ValueError, match="give a number"):
        DecisionRule(**bad)
    with pytest.raises(ValueError, match="two rules"):
        DecisionRule(0.5, {0: 0.5})
