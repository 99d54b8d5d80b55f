"""Statistics over data sets on scores made up here: seeds first, then partitions, then the bar of each setting."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from four_trees import TREES
from scipy import stats

from fedimb.evaluation.intervals import t_interval
from fedimb.evaluation.mixed_model import MIXED
from fedimb.report.bar_text import bar_csv, bar_table, contrasts_csv, sets_csv, sets_table
from fedimb.study.over_sets import over_sets
from fedimb.study.results import Bar, Result, Setting, StudyResults
from fedimb.study.statistics import statistics

NAN = math.nan
NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Loaded once, outside the clock of any test."""
    pytest.importorskip("statsmodels.regression.mixed_linear_model")
    return pytest.importorskip("scikit_posthocs")


def study(scores, bars, contrasts=(), sets=None):
    """``scores``: {(data set, partition, label): [score per seed]}; ``bars``: {(data set, partition): label}."""
    results = tuple(
        Result(
            f"{data_set} {partition}",
            label,
            seed,
            "finished" if math.isfinite(value) else "failed",
            {"minority_recall": value, "macro_recall": value},
        )
        for (data_set, partition, label), values in scores.items()
        for seed, value in enumerate(values)
    )
    places = dict.fromkeys((data_set, partition) for data_set, partition, _ in scores)
    settings = {f"{s} {p}": Setting(f"{s} {p}", (), ("a", "b"), (1,), np.array([9, 2]), data_set=s) for s, p in places}
    chosen = tuple(Bar(f"{s} {p}", 1, label, "macro_recall", {label: 0.5}, (0,)) for (s, p), label in bars.items())
    labels = tuple(dict.fromkeys(label for _, _, label in scores))
    return StudyResults(
        "s", "", settings, labels, labels[0], results, bars=chosen, contrasts=contrasts, primary="macro_recall"
    )


def drawn(sets=12, partitions=2, seeds=3, gain=0.05, seed=0):
    rng = np.random.default_rng(seed)
    scores, bars = {}, {}
    for s in range(sets):
        level, own = rng.uniform(0.5, 0.8), rng.normal(0, 0.01)
        for p in range(partitions):
            hard = rng.normal(0, 0.05)
            for label, more in (("la_post", 0.0), ("lda", -0.02), ("mine", gain + own)):
                scores[f"d{s}", f"p{p}", label] = (level + hard + more + rng.normal(0, 0.004, seeds)).tolist()
            bars[f"d{s}", f"p{p}"] = "la_post"
    return scores, bars


def test_demsars_trees_have_their_published_friedman_statistic_and_critical_difference():
    scores = {
        (f"d{at}", "p", name): [value] for at, row in enumerate(TREES) for name, value in zip(NAMES, row, strict=True)
    }
    results = study(scores, {(f"d{at}", "p"): "C4.5" for at in range(14)})
    ranks = over_sets(results, statistics(results)).ranks["macro_recall"]
    assert ranks.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert ranks.critical_difference == pytest.approx(1.25, abs=0.005)
    # published without the correction for ties: 9.28, and F 3.69 with 3 and 39 degrees of freedom
    n, k = TREES.shape
    uncorrected = 12 * n / (k * (k + 1)) * (np.sum(ranks.mean_ranks**2) - k * (k + 1) ** 2 / 4)
    assert uncorrected == pytest.approx(9.28, abs=0.01)
    assert (n - 1) * uncorrected / (n * (k - 1) - uncorrected) == pytest.approx(3.69, abs=0.01)
    assert ranks.chi2 == pytest.approx(stats.friedmanchisquare(*TREES.T).statistic)
    assert ranks.chi2 > uncorrected  # the tied data sets count less


def test_seeds_are_averaged_first_then_partitions_and_a_data_set_counts_once():
    scores = {
        ("a", "p", "bar_row"): [0.5, 0.7],
        ("a", "q", "bar_row"): [0.3, 0.3],
        ("b", "p", "bar_row"): [0.4, 0.6],
        ("a", "p", "mine"): [0.7, 0.7],  # + .1
        ("a", "q", "mine"): [0.6, 0.6],  # + .3: the data set + .2
        ("b", "p", "mine"): [0.5, 0.7],  # + .1
    }
    results = study(scores, {key[:2]: "bar_row" for key in scores})
    over = over_sets(results, statistics(results))
    mine = next(one for one in over.verdicts if one.label == "mine" and one.score == "macro_recall")
    assert dict(mine.by_set) == pytest.approx({"a": 0.2, "b": 0.1})
    assert (mine.difference, mine.low, mine.high) == pytest.approx(t_interval([0.2, 0.1]))
    assert (mine.sets, mine.said) == (2, "undecided")


def test_a_bar_is_that_of_its_setting_and_a_missing_run_leaves_it_undecided():
    scores, bars = drawn()
    bars["d0", "p0"] = "lda"
    results = study(scores, bars)
    over = over_sets(results, statistics(results))
    found = {one.label: one for one in over.verdicts if one.score == "macro_recall"}
    assert found["lda"].by_set["d0"] > found["lda"].by_set["d1"]  # 0 in one of two partitions
    assert found["la_post"].said == "level"
    assert found["mine"].said == "beats"
    scores["d3", "p1", "mine"][0] = NAN
    results = study(scores, bars, (("mine", "bar"),))
    over = over_sets(results, statistics(results))
    mine = next(one for one in over.verdicts if one.label == "mine" and one.score == "macro_recall")
    assert (mine.sets, mine.said) == (11, "undecided")
    assert math.isnan(mine.by_set["d3"])
    assert over.contrasts[0].said == "undecided"
    assert "nothing is claimed of mine, because runs are missing" in over.notes


def test_planted_effects_are_claimed_after_holm_and_equal_rows_are_level():
    scores, bars = drawn(gain=0.05)
    contrasts = (("mine", "bar"), ("lda", "bar"), ("la_post", "bar"))
    results = study(scores, bars, contrasts)
    over = over_sets(results, statistics(results))
    found = {one.first: one for one in over.contrasts}
    assert {name: one.said for name, one in found.items()} == {"mine": "beats", "lda": "below", "la_post": "level"}
    assert found["mine"].effect.difference == pytest.approx(0.05, abs=0.02)
    assert found["mine"].effect.method == MIXED
    assert found["mine"].p_holm >= found["mine"].effect.p
    (note,) = over.notes  # 12 data sets: no warning of few
    assert note == "where no mixed model could be fitted, contrasts are by paired t test over data sets"
    assert found["la_post"].effect.low == found["la_post"].effect.high == 0  # it is the bar


def test_few_data_sets_are_warned_of_with_the_least_p():
    results = study(*drawn(sets=8, partitions=1, seeds=1))
    (note,) = over_sets(results, statistics(results)).notes
    assert "8 data sets: the least p that Wilcoxon's test over them can reach is .0078" in note
    assert "12 or more" in note


def test_one_data_set_has_no_statistics_over_data_sets():
    results = study(*drawn(sets=1))
    assert over_sets(results, statistics(results)) is None


def test_verdicts_by_hand_within_a_setting():
    scores = {("a", "p", label): values for label, values in {
        "bar_row": [0.5, 0.5, 0.5],
        "more": [0.6, 0.61, 0.59],
        "same": [0.501, 0.502, 0.5],
        "less": [0.4, 0.41, 0.39],
        "wild": [0.2, 0.9, 0.5],
        "lost": [0.6, NAN, 0.6],
        "alone": [0.9],
    }.items()}  # fmt: skip
    results = study(scores, {("a", "p"): "bar_row"})
    found = statistics(results)
    said = {a.label: a.said for a in found.against_bar if a.score == "macro_recall"}
    assert said == {
        "more": "beats", "same": "level", "less": "below", "wild": "undecided", "lost": "undecided",
        "alone": "undecided",
    }  # fmt: skip
    more = next(a for a in found.against_bar if a.label == "more")
    assert (more.difference, more.low, more.high) == pytest.approx(t_interval([0.1, 0.11, 0.09]))
    lost = next(a for a in found.against_bar if a.label == "lost")
    assert (lost.n, lost.missing) == (2, 1)


def test_a_bar_at_another_minimum_count_is_shown_only_where_it_differs():
    scores, bars = drawn(sets=2, partitions=1)
    for (data_set, partition, label), values in list(scores.items()):
        if label == "la_post":
            scores[data_set, partition, "la_post@5"] = [v - 0.1 * (data_set == "d1") for v in values]
    results = study(scores, bars)
    five = tuple(replace(bar, min_count=5, label="la_post@5") for bar in results.bars)
    found = statistics(replace(results, bars=(*results.bars, *five)))
    assert {a.setting for a in found.against_bar if a.min_count == 5} == {"d1 p0"}
    assert {a.setting for a in found.against_bar if a.min_count == 1} == {"d0 p0", "d1 p0"}


def test_tables_and_csvs_say_the_same(tmp_path):
    scores, bars = drawn(sets=3)
    results = study(scores, bars, (("mine", "bar"),))
    found = statistics(results)
    over = over_sets(results, found)
    text = "\n\n".join([bar_table(results, found), sets_table(over)])
    assert max(map(len, text.splitlines())) < 100
    assert "the bar is la_post, by macro recall on validation rows, 1 seed: la_post 0.500" in " ".join(text.split())
    rows = list(csv.DictReader(bar_csv(found, tmp_path / "a.csv").open()))
    assert len(rows) == 6 * 2 * 2  # settings, rows but the bar, scores
    assert {row["verdict"] for row in rows if row["label"] == "mine"} == {"beats"}
    (line,) = csv.DictReader(contrasts_csv(over, "exploratory", tmp_path / "c.csv").open())
    assert (line["second"], line["status"], line["sets"]) == ("bar", "exploratory", "3")
    assert float(line["difference"]) == pytest.approx(over.contrasts[0].effect.difference, abs=1e-5)
    sets = list(csv.DictReader(sets_csv(over, tmp_path / "s.csv").open()))
    assert [row["label"] for row in sets if row["score"] == "macro_recall"] == ["la_post", "lda", "mine"]
    mine = next(row for row in sets if row["label"] == "mine")
    assert float(mine["difference"]) == pytest.approx(np.mean([float(mine[f"d{s}"]) for s in range(3)]), abs=1e-5)
