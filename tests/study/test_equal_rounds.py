"""A row of one round's model is not compared with means over several rounds of others."""

from dataclasses import replace

import numpy as np

from fedimb.report.html.headline import sentence
from fedimb.report.html.numbers import best, ranked, rows_of
from fedimb.report.study_tables import study_table
from fedimb.study.results import Result, Setting, StudyResults, as_shown, with_equal_rounds
from fedimb.study.statistics import statistics


def result(label: str, averaged: int, mean: float, final: float, setting: str = "a") -> Result:
    scores = {"macro_recall": mean, "labels": 7.0}
    return Result(setting, label, 0, scores=scores, final={"macro_recall": final}, averaged=averaged)


def study(*results: Result) -> StudyResults:
    settings = {name: Setting(name, (), (), (), np.zeros(0, np.int64)) for name in ("a", "b")}
    return StudyResults("s", "", settings, tuple(dict.fromkeys(r.label for r in results)), None, results)


def test_where_one_row_was_replaced_all_are_compared_by_the_final_round_and_a_fact_says_so() -> None:
    computed = Result("a", "majority", 0, scores={"macro_recall": 0.1})
    other = result("fedavg", 5, 0.2, 0.3, "b")
    found = with_equal_rounds(study(result("fedavg", 5, 0.5, 0.6), result("gate", 1, 0.61, 0.61), computed, other))
    assert [r.scores["macro_recall"] for r in found.results] == [0.6, 0.61, 0.1, 0.2]
    assert found.results[0].scores["labels"] == 7.0
    assert found.facts == {
        "final round for all rows": "in a: gate leave fewer rounds of their model to average than the others"
    }


def test_equal_rounds_stay_as_they_are() -> None:
    even = study(result("fedavg", 5, 0.5, 0.6), result("tau", 5, 0.4, 0.7))
    assert with_equal_rounds(even) is even


SCORES = {"macro_recall": 0.5, "minority_recall": 0.4, "up_bytes": 0.0, "down_bytes": 0.0, "client_seconds": 1.0}


def test_rows_of_all_classes_at_once_are_called_bounds_beside_rows_by_phases_with_the_steps_of_both() -> None:
    def trained(label: str, steps: float, setting: str = "a", phased: bool = False) -> Result:
        return Result(setting, label, 0, scores={**SCORES, "steps": steps}, phased=phased)

    computed = Result("a", "majority", 0, scores=SCORES)
    mixed = [trained("memory", 1200, phased=True), trained("plain", 3600), computed, trained("lda", 0)]
    shown = as_shown(study(*mixed, trained("plain", 9, "b")))
    assert shown.facts == {
        "phases, with local steps, which are not equal": "in a memory (1,200) by phases; all classes at once, bounds "
        "of these and no rivals: plain (3,600), lda (0)"
    }
    assert "which are not equal: in a memory (1,200) by phases" in " ".join(study_table(shown).split())
    assert as_shown(study(trained("plain", 9))).facts == {}
    assert as_shown(study(trained("memory", 9, phased=True))).facts == {}


def test_a_bound_is_no_rival_in_ranks_tests_stars_and_first_sentences() -> None:
    def runs(label: str, recall: float, setting: str = "a", phased: bool = False) -> list[Result]:
        scores = [{**SCORES, "steps": 9.0, "min_class_recall": 0.1, "minority_recall": recall + s / 50} for s in (0, 1)]
        return [Result(setting, label, s, scores=scores[s], phased=phased) for s in (0, 1)]

    phased = [*runs("memory", 0.4, phased=True), *runs("replay", 0.3, phased=True)]
    shown = as_shown(replace(study(*runs("fedavg", 0.9), *phased), control="fedavg"))
    assert shown.bounds("a") == {"fedavg"}
    assert shown.control is None
    assert "fedavg is therefore no control" in shown.facts["phases, with local steps, which are not equal"]
    rows = rows_of(shown, "a")
    assert [row.label for row in ranked(rows)] == ["memory", "replay"]
    assert [row.label for row in best(rows, "minority_recall")] == ["memory"]
    assert sentence(rows, None).startswith(
        "memory finds more of the minority than any other row trained by phases: 0.410"
    )
    assert next(line.split()[0] for line in study_table(shown).splitlines() if "*" in line) == "memory"

    beside = study(
        *runs("fedavg", 0.9), *phased, *runs("fedavg", 0.5, "b"), *runs("memory", 0.6, "b"), *runs("replay", 0.4, "b")
    )
    both = as_shown(replace(beside, control="fedavg"))
    assert both.control == "fedavg"  # of the setting where all rows see all classes at once
    assert {(c.setting, c.label) for c in statistics(both).comparisons.values()} == {("b", "memory"), ("b", "replay")}
    assert statistics(both).ranks["minority_recall"].methods == ("memory", "replay")
    assert [row.label for row in rows_of(both, "b") if row.control] == ["fedavg"]
    assert not any(row.control for row in rows_of(both, "a"))
    against = as_shown(replace(study(*runs("fedavg", 0.9), *phased), control="replay"))
    assert {c.label for c in statistics(against).comparisons.values()} == {"memory"}
