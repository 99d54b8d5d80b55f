"""The sentence at the end of a result: right in every case, and never more than the numbers say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedimb.report.meaning import study_sentence
from fedimb.report.run_meaning import run_sentence
from fedimb.rundir.result import RowResult, RunResult
from fedimb.study.results import Result, Setting, StudyResults
from fedimb.study.statistics import statistics


def run(*tables, minority=(1,), task="multiclass"):
    rows = tuple(
        RowResult(label, {}, {}, np.array(table), {}, [])
        for label, table in zip(("plain", "tau"), tables, strict=False)
    )
    return RunResult(Path("r"), rows, 0, 0, 1.0, np.array([9, 2]), ("a", "b"), minority, 0, task=task)


def test_a_run_says_what_part_of_the_minority_cases_it_found():
    assert run_sentence(run([[90, 10], [3, 1]])) == (
        "In the final round, plain found 1 of 4 test rows of minority classes (25 %); one seed says nothing about "
        "significance: compare on several (fedimb sweep ... seed=0,1,2,3,4,5)."
    )
    both = run_sentence(run([[90, 10], [3, 1]], [[80, 20], [1, 3]]))
    assert "plain found 1 of 4 test rows of minority classes (25 %) and tau found 3 of 4 (75 %); one seed" in both


def test_a_run_without_minority_classes_or_rows_of_them():
    assert "plain found 91 of 104 test rows (88 %)" in run_sentence(run([[90, 10], [3, 1]], minority=()))
    assert run_sentence(run([[90, 10], [0, 0]])).startswith("The test set has no test rows of minority classes, so")


def test_several_labels_count_labels():
    table = [[[0, 0], [2, 8]], [[6, 0], [3, 1]]]
    found = run_sentence(run(table, task="multilabel"))
    assert "plain found 1 of 4 minority labels in the test set (25 %)" in found


def study(effects, seeds=6, settings=("one",), control="fedavg", spoil=()):
    """Rows with these constant effects (and one that grows with the seed) against fedavg, with and without trouble."""
    results = []
    for setting in settings:
        for label, effect in effects.items():
            for seed in range(seeds):
                score = {"minority_recall": 0.4 + 0.01 * seed + (effect if not callable(effect) else effect(seed))}
                bad = (label, seed) in spoil
                results.append(Result(setting, label, seed, "failed" if bad else "finished", {} if bad else score))
    shown = {name: Setting(name, (), ("a",), (0,), np.array([3])) for name in settings}
    return StudyResults("s", "", shown, tuple(effects), control, tuple(results))


def sentence(*args, **kwargs):
    return study_sentence(statistics(study(*args, **kwargs)))


def alternating(seed):
    return 0.05 if seed % 2 else -0.05


def test_significant_rows_are_named_with_their_effect_and_seeds():
    assert sentence({"fedavg": 0.0, "mine": 0.1}) == (
        "On 6 seeds, mine (+0.100) has significantly better minority recall than fedavg."
    )
    assert sentence({"fedavg": 0.0, "mine": 0.1, "bad": -0.1, "odd": alternating}, seeds=9) == (
        "On 9 seeds, mine (+0.100) has significantly better minority recall than fedavg; bad (-0.100) has "
        "significantly worse minority recall than fedavg; 1 row does not differ significantly from it."
    )
    many = {"fedavg": 0.0} | {f"m{k}": 0.1 + k / 100 for k in range(6)}
    assert "m0 (+0.100), m1 (+0.110), m2 (+0.120) and 3 other rows have significantly" in sentence(many, seeds=12)


def test_over_settings_the_sentence_counts_them():
    found = sentence({"fedavg": 0.0, "mine": 0.1}, settings=("one", "two"))
    assert found == "On 6 seeds, mine (in 2 of 2 settings) has significantly better minority recall than fedavg."


def test_nothing_significant_is_not_taken_for_equality():
    assert sentence({"fedavg": 0.0, "mine": alternating}) == (
        "On 6 seeds, no row differs significantly from fedavg in minority recall."
    )
    assert sentence({"fedavg": 0.0, "mine": 0.1}, seeds=3) == (
        "On 3 seeds, no row differs significantly from fedavg in minority recall, but no difference could be on fewer "
        "than 6 seeds."
    )


def test_one_seed_says_nothing():
    assert sentence({"fedavg": 0.0, "mine": 0.1}, seeds=1) == (
        "On 1 seed, nothing can be said about significance: give several seeds."
    )


def test_missing_runs_rule_out_a_claim():
    found = sentence({"fedavg": 0.0, "mine": 0.1}, seeds=8, spoil=[("mine", 3)])
    assert found.startswith("On 7 seeds, no row differs significantly from fedavg")
    assert found.endswith("nothing is claimed of 1 row with missing runs.")


@pytest.mark.parametrize(
    ("effects", "control", "words"),
    [
        ({"mine": 0.1}, None, "On 6 seeds, there is one row and nothing to compare it with"),
        ({"mine": 0.1, "other": 0.0}, None, "On 6 seeds, rows were not tested against each other"),
    ],
)
def test_without_a_control_nothing_is_claimed(effects, control, words):
    assert sentence(effects, control=control).startswith(words)


def test_a_score_that_does_not_apply_is_passed_over():
    whole = study({"fedavg": 0.0, "mine": 0.1})
    scores = tuple(replace(r, scores={"macro_recall": r.score("minority_recall")}) for r in whole.results)
    found = study_sentence(statistics(replace(whole, results=scores)))
    assert found == "On 6 seeds, mine (+0.100) has significantly better macro recall than fedavg."


def test_own_rows_against_the_bar_are_named_and_reference_rows_are_not():
    from fedimb.report.meaning import bar_sentence
    from fedimb.study.results import Bar

    def study(settings, labels=("la_post", "mine", "lda")):
        results = tuple(
            Result(setting, label, seed, "finished", {"minority_recall": value, "macro_recall": value + seed / 1000})
            for setting in settings
            for label, value in zip(labels, (0.5, 0.6, 0.4), strict=True)
            for seed in range(3)
        )
        given = {name: Setting(name, (), ("a", "b"), (1,), np.array([9, 2])) for name in settings}
        bars = tuple(Bar(name, 1, "la_post", "macro_recall", {"la_post": 0.5}, (0,)) for name in settings)
        return StudyResults("s", "", given, labels, "la_post", results, bars=bars)

    one = study(["a"])
    said = "Within one data set each, in macro recall against the bar: mine beats it."
    assert bar_sentence(one, statistics(one), None) == said
    two = study(["a", "b"])
    assert "mine beats it in 2 of 2 settings" in bar_sentence(two, statistics(two), None)
    none = replace(one, bars=())
    assert bar_sentence(none, statistics(none), None) == ""
