"""The cumulative sum rings for a lasting fall, and not for noise, growth or a recall that stands still."""

import math

import numpy as np

from fedimb.evaluation.recall_drop import LEAST_SPREAD, SLACK, THRESHOLD, WINDOW, RecallDrop, largest_drop

STEADY = [0.8, 0.82, 0.78, 0.81, 0.79, 0.8, 0.82, 0.78]


def test_the_sum_is_what_the_formula_says():
    watch = RecallDrop()
    assert [watch.add(one) for one in STEADY] == [0.0] * WINDOW
    spread = 1.4826 * 0.015  # median distance from .8: .01 and .02 alike often
    assert abs(watch.add(0.7) - ((0.8 - 0.7) / spread - SLACK)) < 1e-9
    assert watch.history == STEADY  # the past does not follow a fall
    first = watch.sum
    watch.add(0.7)
    assert abs(watch.sum - 2 * first) < 1e-9
    assert watch.expected == 0.8


def test_a_single_bad_round_is_forgotten_and_a_lasting_fall_rings():
    assert largest_drop([*STEADY, 0.72, *STEADY, *STEADY]) < THRESHOLD
    assert largest_drop([*STEADY, *[0.7] * 9]) > THRESHOLD


def test_one_or_two_rows_of_a_class_are_no_alarm():
    less = [19 / 20] * 8 + [18.5 / 20] * 20  # one row of forty, to the end
    assert largest_drop(less) > THRESHOLD
    assert largest_drop(less, rows=40) == 0
    assert largest_drop([19 / 20] * 8 + [15 / 20] * 20, rows=40) > THRESHOLD


def test_growth_and_standing_still_do_not_ring():
    assert largest_drop(list(np.linspace(0, 0.9, 60))) == 0
    assert largest_drop([0.0] * 50) == largest_drop([1.0] * 50) == 0
    assert largest_drop([0.9] * 20 + [0.9 - LEAST_SPREAD / 3] * 20) == 0
    assert largest_drop([]) == 0


def test_rounds_without_a_recall_are_passed_over():
    with_gaps = [value for one in (*STEADY, *[0.6] * 3) for value in (one, math.nan)]
    assert largest_drop(with_gaps) == largest_drop([*STEADY, *[0.6] * 3])
