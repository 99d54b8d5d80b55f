"""Rows at tau 1 and at their own temperature: which belong together, and whether their order changes."""

from pathlib import Path

import numpy as np

from fedimb.report.study_tables import study_table
from fedimb.study.results import Result, Setting, StudyResults
from fedimb.study.tau_order import order_sentence, tau_pairs


def row(label, run, macro, tau, rule="", setting="default", seed=0):
    costs = dict.fromkeys(("up_bytes", "down_bytes", "client_seconds"), 1.0)
    scores = {"macro_recall": macro, "minority_recall": macro, **costs}
    return Result(setting, label, seed, scores=scores, folder=Path(run), tau=tau, tau_rule=rule)


def study(*results):
    counts = np.array([9, 1])
    settings = {r.setting: Setting(r.setting, (), ("a", "b"), (1,), counts) for r in results}
    return StudyResults("s", "", settings, tuple(dict.fromkeys(r.label for r in results)), None, results)


def both(name, at_one, at_own, setting="default", seed=0):
    run = f"{name}-{setting}-{seed}"
    return (
        row(name, run, at_one, 1.0, setting=setting, seed=seed),
        row(f"{name}_t", run, at_own, 1.8, "temperature", setting, seed),
    )


def test_rows_of_one_run_belong_together_and_seeds_are_averaged():
    found = tau_pairs(study(*both("r", 0.6, 0.7), *both("r", 0.8, 0.7, seed=1), row("other", "x", 0.1, 1.0)))
    (pair,) = found
    assert (pair.label, pair.own_label, pair.taus) == ("r", "r_t", (1.8, 1.8))
    np.testing.assert_allclose((pair.at_one, pair.at_own), (0.7, 0.7))


def test_another_number_or_the_oracle_is_no_such_row():
    assert tau_pairs(study(row("r", "x", 0.6, 2.0), row("t", "x", 0.6, 1.8, "temperature"))) == []
    assert tau_pairs(study(row("r", "x", 0.6, 1.0), row("o", "x", 0.6, 1.8, "oracle_pool"))) == []
    assert order_sentence(study(row("r", "x", 0.6, 1.0))) == ""


def test_an_order_that_stays_and_one_that_changes():
    same = study(*both("r", 0.6, 0.65), *both("e", 0.5, 0.6))
    assert order_sentence(same).endswith("the order of 2 rows at tau 1 and at their own temperature is the same.")
    changed = study(*both("r", 0.60, 0.60), *both("e", 0.59, 0.61), *both("f", 0.61, 0.63))
    assert "(e passes r)" in order_sentence(changed)
    assert "(e passes r)" in " ".join(study_table(changed).split())


def test_settings_are_told_apart():
    results = (*both("r", 0.6, 0.6, "even"), *both("e", 0.5, 0.7, "even"))
    results += (*both("r", 0.6, 0.6, "skewed"), *both("e", 0.5, 0.5, "skewed"))
    text = order_sentence(study(*results))
    assert "(even: e passes r)" in text
    assert "the same in 1 of 2 settings" in text


def test_one_row_has_no_order():
    assert "takes two such rows" in order_sentence(study(*both("r", 0.6, 0.7)))
