"""A gain's parts: what each is, that they sum, and what is left out."""

import dataclasses

import numpy as np
import pytest

from fedimb.study.design import as_given
from fedimb.study.gains import take_apart
from fedimb.study.results import Result, Setting, StudyResults
from fedimb.study.statistics import statistics


def study(scores, score="macro_recall"):
    """Results of {label: [score of seed 0, 1, ...]} in one setting; None: the run diverged."""
    results = [
        Result("default", label, seed, "finished" if value is not None else "diverged", {score: value or 0.0})
        for label, values in scores.items()
        for seed, value in enumerate(values)
    ]
    setting = Setting("default", (), ("a", "b"), (1,), np.array([9, 1]))
    return StudyResults("s", "", {"default": setting}, tuple(scores), "fedavg", tuple(results))


SCORES = {
    as_given("fedavg"): [0.50, 0.52, 0.54],
    "fedavg": [0.60, 0.60, 0.63],
    as_given("mine"): [0.55, 0.58, 0.58],
    "mine": [0.64, 0.63, 0.68],
}


def test_the_parts_are_those_of_the_definition_and_sum_to_the_gain():
    (one,) = take_apart(study(SCORES), ["mine"], "fedavg")
    assert one.seeds == (0, 1, 2)
    assert one.gain.mean == pytest.approx(0.13)
    assert one.recipe.mean == pytest.approx(0.05)
    assert one.scalars.mean == pytest.approx(0.09)
    assert one.knobs.mean == pytest.approx(-0.01)
    assert one.remaining.mean == pytest.approx(0.04)
    assert one.gain.mean == pytest.approx(one.recipe.mean + one.scalars.mean + one.knobs.mean)
    assert one.remaining.mean == pytest.approx(one.recipe.mean + one.knobs.mean)
    assert one.luck == pytest.approx(0.01)
    assert one.remaining.low == pytest.approx(0.04 - 4.302653 * 0.01 / np.sqrt(3), abs=1e-6)


def test_where_less_is_better_more_is_a_loss():
    (one,) = take_apart(study(SCORES, "ece"), ["mine"], "fedavg", "ece")
    assert one.gain.mean == pytest.approx(-0.13)


def test_a_seed_that_any_of_the_four_runs_lacks_is_left_out():
    (one,) = take_apart(study(SCORES | {"mine": [0.64, None, 0.68]}), ["mine"], "fedavg")
    assert one.seeds == (0, 2)
    (none,) = take_apart(study(SCORES | {"mine": [None] * 3}), ["mine"], "fedavg")
    assert none.seeds == ()
    assert np.isnan(none.gain.mean)
    assert np.isnan(none.luck)


def test_a_row_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="other"):
        take_apart(study(SCORES), ["other"], "fedavg")


def test_rows_as_given_are_not_tested_and_cost_the_others_no_power():
    own = study({key: value for key, value in SCORES.items() if "given" not in key})
    alone = statistics(own).comparisons["default", "macro_recall", "mine"]
    made = statistics(dataclasses.replace(study(SCORES), taken_apart=("fedavg", "mine")))
    assert {label for _, _, label in made.comparisons} == {"mine"}
    assert made.comparisons["default", "macro_recall", "mine"].p_holm == alone.p_holm
