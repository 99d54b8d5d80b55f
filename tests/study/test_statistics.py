import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedimb.errors import ConfigError
from fedimb.evaluation.intervals import t_interval
from fedimb.report.statistics_text import statistics_csv
from fedimb.study.results import Result, Setting, StudyResults
from fedimb.study.statistics import statistics

NAN = math.nan
GAINS = {"fedavg": 0.0, "la_post": 0.09, "same": 0.0005, "worse": -0.2}


@pytest.fixture(scope="module", autouse=True)
def posthocs():
    """Loaded once, outside the clock of any test."""
    return pytest.importorskip("scikit_posthocs")


def study(scores, control="fedavg", labels=None, status=None):
    """``scores``: {(setting, label): [score per seed]}; NaN is a run that ``status`` or ``diverged``."""
    results = tuple(
        Result(
            setting,
            label,
            seed,
            "finished" if math.isfinite(value) else (status or {}).get((label, seed), "diverged"),
            {"minority_recall": value, "macro_recall": value, "ece": value},
        )
        for (setting, label), values in scores.items()
        for seed, value in enumerate(values)
    )
    names = dict.fromkeys(setting for setting, _ in scores)
    settings = {name: Setting(name, (), ("a", "b"), (1,), np.array([9, 2])) for name in names}
    return StudyResults(
        "s", "", settings, tuple(labels or dict.fromkeys(label for _, label in scores)), control, results
    )


def drawn(seeds=12, settings=("one",), seed=0):
    rng = np.random.default_rng(seed)
    return {
        (setting, label): (0.6 + gain + rng.normal(0, 0.004, seeds)).tolist()
        for setting in settings
        for label, gain in GAINS.items()
    }


def test_every_row_is_compared_with_the_control_and_holm_is_within_a_setting_and_score():
    scores = drawn(settings=("one", "two"))
    found = statistics(study(scores))
    assert len(found.comparisons) == 2 * 2 * 3
    rows = {label: scores["one", label] for label in GAINS if label != "fedavg"}
    raw = {label: stats.wilcoxon(np.subtract(row, scores["one", "fedavg"])).pvalue for label, row in rows.items()}
    smallest, middle, largest = sorted(raw.values())
    for label, p in raw.items():
        c = found.comparisons["one", "minority_recall", label]
        assert c.test.p == pytest.approx(p)
        expected = {smallest: 3 * smallest, middle: max(3 * smallest, 2 * middle)}.get(p)
        assert c.p_holm == pytest.approx(expected or max(3 * smallest, 2 * middle, largest))
        assert c.tost_holm >= c.test.tost_p
    verdicts = {c.label: (c.verdict, c.equivalent) for c in found.comparisons.values() if c.score == "macro_recall"}
    assert verdicts == {"la_post": ("better", False), "same": ("", True), "worse": ("worse", False)}
    assert found.notes == ()


def test_a_summary_is_over_the_runs_with_a_number_and_counts_the_others():
    scores = {("one", "fedavg"): [0.5, 0.6, NAN, 0.9, NAN, NAN]}
    found = statistics(study(scores, status={("fedavg", 4): "failed", ("fedavg", 5): "finished"}))
    row = found.summaries["one", "macro_recall", "fedavg"]
    assert (row.n, row.diverged, row.failed, row.undefined) == (3, (2,), (4,), 1)
    assert (row.mean, row.low, row.high) == pytest.approx(t_interval([0.5, 0.6, 0.9]))
    assert row.median == 0.6
    assert list(row.values) == [0, 1, 2, 3, 4, 5]
    assert row.values[1] == 0.6
    assert math.isnan(row.values[2])
    assert not row.complete


def test_bca_may_be_had_instead_and_is_the_same_every_time():
    scores = {("one", "fedavg"): [0.5, 0.6, 0.62, 0.9, 0.58, 0.57]}
    first, again = (statistics(study(scores), spread="bca").summaries for _ in range(2))
    row = first["one", "macro_recall", "fedavg"]
    assert row == again["one", "macro_recall", "fedavg"]
    assert row.high - row.mean > 1.2 * (row.mean - row.low)


def test_a_row_with_a_diverged_run_claims_nothing_however_good_the_rest():
    scores = drawn()
    scores["one", "la_post"][3] = NAN
    found = statistics(study(scores))
    test = found.comparisons["one", "macro_recall", "la_post"]
    assert (test.test.n, test.test.missing, test.test.wins, test.test.losses) == (11, 1, 11, 1)
    assert test.p_holm < 0.05
    assert (test.verdict, test.equivalent) == ("", False)
    scores = drawn()
    scores["one", "same"][0] = NAN
    assert not statistics(study(scores)).comparisons["one", "macro_recall", "same"].equivalent
    scores = drawn()
    scores["one", "fedavg"][3] = NAN
    assert {c.verdict for c in statistics(study(scores)).comparisons.values()} == {""}


def test_a_row_that_only_failed_stays_and_makes_nothing_easier_for_others():
    scores = drawn()
    whole = statistics(study(scores)).comparisons
    scores["one", "worse"] = [NAN] * 12
    found = statistics(study(scores))
    lost = found.comparisons["one", "macro_recall", "worse"]
    assert (lost.test.n, lost.test.missing, lost.test.losses, lost.verdict) == (0, 12, 12, "")
    assert math.isnan(lost.p_holm)
    assert found.notes == ()  # what a failed row lacks is no want of seeds
    key = ("one", "macro_recall", "la_post")
    assert found.comparisons[key].p_holm == whole[key].p_holm == pytest.approx(3 * 2**-11)


def test_a_score_that_does_not_apply_to_a_row_is_no_loss_and_no_comparison():
    scores = drawn(settings=("one", "two", "three"))
    for setting in ("one", "two", "three"):
        scores[setting, "worse"] = [NAN] * 12
    status = {("worse", seed): "finished" for seed in range(12)}
    found = statistics(study(scores, status=status))
    assert {c.label for c in found.comparisons.values()} == {"la_post", "same"}
    assert found.comparisons["one", "macro_recall", "la_post"].p_holm == pytest.approx(2 * 2**-11)
    assert found.summaries["one", "macro_recall", "worse"].undefined == 12
    assert found.ranks["macro_recall"].methods == ("fedavg", "la_post", "same")


def test_too_few_seeds_are_said_for_the_settings_they_are_in():
    scores = drawn(5, settings=("one",)) | drawn(12, settings=("two",))
    notes = statistics(study(scores)).notes
    assert notes == (
        "one: 5 seeds: the smallest p that 5 pairs can reach is .0625; with Holm over 3 comparisons at least 7 seeds "
        "are needed; read these as descriptive",
    )
    assert statistics(study(drawn(5))).notes[0].startswith("5 seeds")
    assert {c.verdict for c in statistics(study(drawn(5))).comparisons.values()} == {""}


def test_seeds_that_only_one_side_was_asked_for_are_no_loss_but_are_said():
    scores = drawn(12)
    scores["one", "la_post"] = scores["one", "la_post"][:10]
    found = statistics(study(scores))
    test = found.comparisons["one", "macro_recall", "la_post"].test
    assert (test.n, test.missing, test.losses) == (10, 0, 0)
    assert found.notes == ("la_post and fedavg do not both have seeds 10, 11: not compared there",)


def test_lower_is_better_where_the_score_says_so():
    found = statistics(study(drawn(settings=("one", "two"))), scores=["ece"], margin=None)
    assert {c.label: c.verdict for c in found.comparisons.values()} == {
        "la_post": "worse",
        "same": "",
        "worse": "better",
    }
    assert found.comparisons["one", "ece", "worse"].test.wins == 12
    assert found.ranks["ece"].mean_ranks[3] == 1
    assert math.isnan(found.comparisons["one", "ece", "same"].tost_holm)


def test_ranks_are_of_means_over_settings_and_a_missing_run_ranks_last():
    scores = {
        ("one", "fedavg"): [0.1, 0.9],  # mean .5, between
        ("one", "b"): [0.6, 0.6],
        ("one", "c"): [0.4, 0.4],
        ("two", "fedavg"): [0.5, 0.5],
        ("two", "b"): [0.99, NAN],
        ("two", "c"): [0.4, 0.4],
    }
    ranks = statistics(study(scores)).ranks["macro_recall"]
    assert ranks.settings == 2
    assert ranks.mean_ranks.tolist() == [1.5, 2.0, 2.5]
    alone = statistics(study({k: v for k, v in scores.items() if k[0] == "one"})).ranks["macro_recall"]
    assert "2 settings" in alone.note
    # nobody has a mean in the second setting: it says nothing
    for label in ("fedavg", "b", "c"):
        scores["two", label] = [NAN, 0.5]
    assert statistics(study(scores)).ranks["macro_recall"].settings == 1


def test_a_row_of_some_settings_only_is_compared_there_and_has_no_rank():
    scores = drawn(settings=("one", "two", "three"))
    del scores["two", "worse"]
    found = statistics(study(scores))
    assert ("two", "macro_recall", "worse") not in found.comparisons
    assert found.comparisons["one", "macro_recall", "worse"].verdict == "worse"
    assert found.comparisons["two", "macro_recall", "la_post"].p_holm == pytest.approx(2 * 2**-11)
    assert found.ranks["macro_recall"].methods == ("fedavg", "la_post", "same")
    assert found.notes == ()


def test_without_a_control_there_are_summaries_only():
    found = statistics(study(drawn(), control=None))
    assert found.comparisons == {}
    assert "no control" in found.notes[0]
    assert found.summaries["one", "macro_recall", "la_post"].n == 12


def test_what_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'macro_recall'"):
        statistics(study(drawn()), scores=["macro_recal"])
    with pytest.raises(ConfigError, match="Did you mean 'fedavg'"):
        statistics(study(drawn(), control="fedav"))
    twice = study(drawn())
    twice = StudyResults("s", "", twice.settings, twice.labels, "fedavg", (*twice.results, twice.results[0]))
    with pytest.raises(ValueError, match="two results of 'fedavg' for one seed"):
        statistics(twice)


def test_csv_has_a_line_per_comparison_and_leaves_the_undefined_empty(tmp_path):
    found = statistics(study(drawn(5)))
    rows = list(csv.DictReader(statistics_csv(found, tmp_path / "s.csv").open()))
    assert [(r["setting"], r["score"], r["label"]) for r in rows] == list(found.comparisons)
    first = found.comparisons["one", "minority_recall", "la_post"]
    assert float(rows[0]["effect"]) == pytest.approx(first.test.effect, rel=1e-5)
    assert (rows[0]["control"], rows[0]["n"], rows[0]["missing"], rows[0]["wins"]) == ("fedavg", "5", "0", "5")
    assert float(rows[0]["p_holm"]) == pytest.approx(first.p_holm, rel=1e-5)
    assert (rows[0]["low"], rows[0]["verdict"], rows[0]["equivalent"]) == ("", "", "false")
    without = statistics(study(drawn(5)), margin=None)
    rows = list(csv.DictReader(statistics_csv(without, tmp_path / "t.csv").open()))
    assert {(r["margin"], r["tost_p"], r["equivalent"]) for r in rows} == {("", "", "")}


def test_the_area_over_labels_is_tested_among_the_rows_that_asked_for_labels():
    plain = study(drawn())
    assert statistics(plain).scores == ("minority_recall", "macro_recall")
    asked = [
        replace(r, scores={**r.scores, "aulc_minority_recall": r.scores["macro_recall"]}) if r.label != "worse" else r
        for r in plain.results
    ]
    found = statistics(replace(plain, results=tuple(asked)))
    assert found.scores == ("minority_recall", "macro_recall", "aulc_minority_recall")
    assert found.comparisons["one", "aulc_minority_recall", "same"].equivalent
    assert ("one", "aulc_minority_recall", "worse") not in found.comparisons
