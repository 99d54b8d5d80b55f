"""Two models on the same rows: what is tested, corrected and refused, and that seeds are never pooled as rows."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scored_rows import LABELS, NAMES, scored

from fedimb.errors import DataError, FedimbError
from fedimb.evaluation.delong import delong
from fedimb.evaluation.paired_recall import mcnemar
from fedimb.evaluation.significance import holm, paired
from fedimb.study.model_pairs import compare_models, compare_seeds


def compared(a, b):
    return compare_models(a, b, resamples=200)


def test_each_class_is_tested_by_the_tests_of_two_models():
    a, b = scored(2.5), scored(1, "b", draw=1)
    found = compared(a, b)
    right = [one.scores.logits.argmax(1) == LABELS for one in (a, b)]
    for c in range(3):
        alone = delong(c == LABELS, a.scores.probabilities[:, c], b.scores.probabilities[:, c])
        assert found.auroc[c] == alone
        own = c == LABELS
        counts = [int((one & ~other & own).sum()) for one, other in (right, right[::-1])]
        test = found.recall.classes[c]
        assert [test.only_a, test.only_b] == counts
        assert (test.p, test.mid_p) == pytest.approx(mcnemar(*counts))
        assert test.recall_a == pytest.approx(right[0][own].mean())
    assert found.recall_holm == tuple(holm({str(c): t.p for c, t in enumerate(found.recall.classes)}).values())
    assert found.auroc_holm == tuple(holm({str(c): t.p for c, t in enumerate(found.auroc)}).values())
    assert found.recall.minority.recall_a == pytest.approx(found.recall.classes[2].recall_a)
    assert found.recall.macro.difference > 0
    assert found.recall.macro.p < 0.05


def test_a_model_against_itself_and_two_models_swapped():
    a, b = scored(2), scored(1, "b", draw=1)
    same = compared(a, a)
    assert {*same.auroc_holm, *same.recall_holm, same.recall.macro.p, same.recall.minority.p} == {1.0}
    found, swapped = compared(a, b), compared(b, a)
    assert swapped.recall_holm == pytest.approx(found.recall_holm)
    assert swapped.auroc_holm == pytest.approx(found.auroc_holm)
    assert swapped.recall.macro.low == pytest.approx(-found.recall.macro.high)


def test_a_suspect_run_is_named():
    a, b = scored(2.5), replace(scored(1, "b", draw=1), suspect="predicts one class for all rows")
    note = f"suspect, b, seed {b.seed}: predicts one class for all rows"
    assert note in compared(a, b).notes
    assert not any("suspect" in text for text in compared(a, replace(b, suspect="")).notes)
    over = compare_seeds({0: a, 1: a}, {0: replace(b, suspect=""), 1: b}, "default", ("a", "b"))
    assert over.notes.count(note) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.arange(102) + 7}, r"not scored on the same rows \(102 and 102, 95 of them in common\)"),
        ({"test_set": "other"}, r"same numbers and other contents .* the data changed between the runs"),
        ({"labels": LABELS[::-1].copy()}, "same numbers and other contents"),
        ({"class_names": ("a", "b", "c")}, "do not have the same classes"),
    ],
)
def test_other_rows_are_refused_in_one_line(change, message):
    with pytest.raises(DataError, match=message) as caught:
        compared(scored(1), scored(1, "b", **change))
    assert "\n" not in str(caught.value)


def test_patients_are_counted_where_they_have_several_rows():
    patients = np.arange(102) // 3
    pairs = [compared(scored(2, patients=given), scored(1, "b", draw=1)) for given in (None, np.arange(102), patients)]
    assert [pair.patients for pair in pairs] == [0, 0, 34]
    assert pairs[0].recall.macro.p == pairs[1].recall.macro.p != pairs[2].recall.macro.p
    assert any("102 rows of 34 patients" in note for note in pairs[2].notes)


def test_what_limits_a_comparison_is_noted():
    labels = np.repeat([0, 1], [60, 5])
    b = scored(1, "b", seed=3, draw=1, labels=labels, minority=(1,), rows=np.arange(65), test_set="hash of seed 0")
    notes = " | ".join(compared(scored(2, labels=labels), b).notes)
    assert "minority classes differ, so minority recall is not compared" in notes
    assert "seeds 0 and 3" in notes
    assert "without test rows: rare" in notes
    assert "fewer than 10 rows, where DeLong's p errs too often, so nothing is claimed of their AUROC:" in notes


@pytest.mark.parametrize("patients", [None, np.repeat(np.arange(40), 5)])
def test_nothing_is_claimed_of_the_auroc_of_few_rows_or_patients(patients):
    """9 rows, or 40 rows of 8 patients: McNemar's test is exact, DeLong's is not."""
    labels = np.repeat([0, 1], [160, 40] if patients is not None else [160, 9])
    change = {"labels": labels, "patients": patients}
    found = compared(scored(6, **change), scored(-2, "b", draw=1, **change))
    assert found.auroc[1].units == (9 if patients is None else 8)
    assert found.auroc[1].p < 0.001
    assert math.isnan(found.auroc_holm[1])
    assert found.recall_holm[1] < 0.05
    assert any("nothing is claimed of their AUROC: frequent, middle" in note for note in found.notes)


def test_an_absent_class_is_not_among_those_holm_corrects_for():
    labels = np.repeat([0, 1], [60, 42])
    found = compared(scored(2, labels=labels), scored(1, "b", draw=1, labels=labels))
    assert math.isnan(found.recall_holm[2])
    assert math.isnan(found.auroc_holm[2])
    smallest = min(test.p for test in found.recall.classes[:2])
    assert min(found.recall_holm[:2]) == pytest.approx(2 * smallest)


def test_several_labels_per_row():
    targets = np.tile(np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0]], np.uint8), (20, 1))
    found = compared(scored(2, labels=targets), scored(-1, "b", draw=1, labels=targets))
    assert found.recall.overall is None
    assert [test.rows for test in found.recall.classes] == [60, 20, 20]
    assert math.isnan(found.auroc[0].p)  # every row has the class
    assert found.recall_holm[0] < 0.05


def test_seeds_are_tested_each_on_its_own_rows_and_then_over_seeds():
    seeds = range(8)
    a = {seed: scored(2, "a", seed) for seed in seeds}
    b = {seed: scored(1, "b", seed, draw=1) for seed in seeds}
    found = compare_seeds(a, b, "mild", ("a", "b"))
    assert {pair.rows for pair in found.pairs.values()} == {102}
    alone = compare_models(a[3], b[3])
    assert found.pairs[3].recall.macro == alone.recall.macro
    macro = [pair.recall.macro for pair in found.pairs.values()]
    assert found.macro.test == paired([one.recall_a for one in macro], [one.recall_b for one in macro])
    assert found.macro.p == 2 / 2**8  # 8 seeds, all in favour of A; 816 rows pooled would give far less
    raw = {str(c): one.test.p for c, one in enumerate(found.recall)}
    assert [one.p for one in found.recall] == list(holm(raw).values())
    assert found.missing == {}
    assert not any("seeds are needed" in note for note in found.notes if note.startswith("minority"))


def test_over_few_seeds_the_power_is_noted():
    pair = ({0: scored(2)}, {0: scored(1, "b", draw=1)})
    assert any("1 seed" in note for note in compare_seeds(*pair).notes)


def test_a_missing_run_is_named_and_rules_out_a_claim():
    a = {seed: scored(2, "a", seed) for seed in range(8)} | {8: "a diverged (weights are not finite)"}
    b = {seed: scored(1, "b", seed, draw=1) for seed in range(10)}
    found = compare_seeds(a, b, labels=("a", "b"))
    assert found.missing == {8: "a diverged (weights are not finite)", 9: "no run of a"}
    assert found.macro.test.missing == 1  # seed 9 was never asked for in a
    with pytest.raises(
        FedimbError, match=r"no seed of setting 'default' has a finished run of both rows \(no run of b\)"
    ):
        compare_seeds({0: a[0]}, {}, labels=("a", "b"))


def test_ranks_that_move_between_seeds_are_noted():
    a = {seed: scored(2, "a", seed, minority=(seed,)) for seed in (0, 1)}
    b = {seed: scored(1, "b", seed, draw=1, minority=(seed,)) for seed in (0, 1)}
    found = compare_seeds(a, b)
    assert any("minority classes differ between seeds" in note for note in found.notes)
    assert found.pairs[1].minority == (1,)
    assert found.pairs[1].class_names == NAMES
