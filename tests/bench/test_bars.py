"""Medians, ratios and verdicts on invented numbers; the CSV and the table made of them."""

import csv
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.bench.bars import added, agree, at_least, at_most, grown, ratio, single
from fedimb.bench.cases import CASES, ENGINES
from fedimb.bench.measurement import Figures, Measurement, between
from fedimb.bench.report import table, text, write_csv


def one(engine, repeat=1, rounds=(1.0,), case="table", recall=0.8, **more):
    numbers = {"start_s": 2.0, "rows_per_round": 100.0, "whole_s": 10.0, "peak_mb": 300.0, "others_mb": math.nan}
    return Measurement(case, engine, repeat, rounds_s=tuple(rounds), macro_recall=recall, **(numbers | more))


def test_round_is_the_median_and_throughput_follows_from_it():
    measured = one("inline", rounds=between([10.0, 10.5, 11.0, 15.0]))
    assert measured.rounds_s == (0.5, 0.5, 4.0)
    assert measured.round_s == 0.5
    assert measured.rows_per_s == 200.0
    assert math.isnan(one("inline", rounds=()).round_s)


def test_ratio_is_of_medians_over_repeats():
    figures = Figures([one("stock", i, [s]) for i, s in enumerate((8.0, 9.0, 100.0))])
    bar = ratio("table", "stock", "inline", "round_s", at_least(8), aim=12)
    assert bar.verdict(figures) == "not measured"
    figures.measured += [one("inline", i, [s]) for i, s in enumerate((1.0, 0.01, 1.0))]
    assert bar.value(figures) == 9.0
    assert bar.shown(figures) == ("table: time per round, stock / inline", "9.00 x", ">= 8 (aim 12)", "pass")


@pytest.mark.parametrize(
    ("limit", "verdict"), [(at_least(2), "pass"), (at_least(2.01), "miss"), (at_most(1.9), "miss")]
)
def test_a_limit_is_kept_or_missed(limit, verdict):
    figures = Figures([one("stock", rounds=[2.0]), one("inline", rounds=[1.0])])
    assert ratio("table", "stock", "inline", "round_s", limit).verdict(figures) == verdict
    whole = Figures([one("stock", whole_s=4.0), one("inline", whole_s=2.0)])
    assert ratio("table", "stock", "inline", "whole_s", limit).verdict(whole) == verdict


def test_memory_is_a_difference_of_differences():
    figures = Figures(
        [
            one("inline", case="scale-100", rounds=[0.1], before_mb=300.0, after_mb=310.0),
            one("inline", case="scale-100000", rounds=[0.11], before_mb=900.0, after_mb=990.0),
        ]
    )
    sizes = ("scale-100000", "scale-100")
    assert added("scale", "gained", *sizes, "inline", "growth_mb", at_most(100)).value(figures) == 80.0
    shown = added("scale", "held", *sizes, "inline", "after_mb", None).shown(figures)
    assert shown == ("scale: held, scale-100000 - scale-100", "680 MB", "", "")
    assert grown("scale", *sizes, "inline", at_most(1.2)).value(figures) == pytest.approx(1.1)
    assert single("scale-100", "held", "inline", "before_mb", at_most(1), "MB").verdict(figures) == "miss"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
@settings(max_examples=20, deadline=None)
def test_agreement_is_the_widest_gap(recalls):
    figures = Figures([one(engine, recall=r) for engine, r in zip(ENGINES, recalls, strict=False)])
    bar = agree("table", 0.01)
    assert bar.value(figures) == max(recalls) - min(recalls)
    assert (bar.verdict(figures) == "pass") == (max(recalls) - min(recalls) <= 0.01)
    figures.measured.append(one("stock", repeat=2, recall=math.nan))  # undefined in one repeat: no verdict of agreement
    if len(recalls) == len(ENGINES):
        assert bar.verdict(figures) == "not measured"


def test_every_bar_reads_measurements_its_case_makes():
    for case in CASES.values():
        full = Figures(
            [
                one(
                    e, rounds=[1.0], case=label, before_mb=1.0, after_mb=1.0, mapped_mb=1.0, gap_s=1.0, same_workers=1.0
                )
                for label in case.labels()
                for e in case.engines
            ]
        )
        for bar in case.bars:
            assert bar.case == case.name
            assert not math.isnan(bar.value(full)), bar.what
            assert bar.verdict(Figures()) == "not measured"


def test_csv_and_text(tmp_path):
    measured = [one("inline", rounds=[0.5, 0.25], trainer="stacked"), one("stock", rounds=[4.0, 4.0])]
    write_csv(measured, tmp_path / "bench.csv")
    with open(tmp_path / "bench.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["engine"] for row in rows] == ["inline", "stock"]
    assert rows[0]["rounds_s"] == "0.5000 0.2500"
    assert rows[0]["round_s"] == "0.3750"
    assert rows[0]["rows_per_s"] == "267"
    assert rows[0]["rounds"] == "4"
    assert rows[0]["others_mb"] == rows[0]["gap_s"] == ""
    bars = [ratio("table", "stock", "inline", "round_s", at_least(12))]
    shown = table(Figures(measured), bars)
    assert "table  inline  stacked     2.00     375.0" in shown
    assert " ".join(shown.splitlines()[-1].split()) == "table: time per round, stock / inline 10.67 x >= 12 miss"
    whole = text(Figures(measured), bars, "fedimb bench table", 2, ["left out: cifar: no zip"])
    assert whole.startswith("command   fedimb bench table\n")
    assert "left out: cifar: no zip" in whole
    assert shown in whole
