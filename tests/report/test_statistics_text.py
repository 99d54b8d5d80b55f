import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.report.statistics_text import statistics_table
from fedimb.study.results import Result, Setting, StudyResults
from fedimb.study.statistics import statistics
from fedimb.text import width

UTF8 = io.TextIOWrapper(io.BytesIO(), "utf-8")
ASCII = io.TextIOWrapper(io.BytesIO(), "ascii")


def study(labels, names=("one",), seeds=6, control=0, scale=1.0, spoil=()):
    """Row k is .1 k above the control, seed by seed; ``spoil``: (label, seed, status)."""
    trouble = {(label, seed): status for label, seed, status in spoil}
    results = []
    for name in names:
        for k, label in enumerate(labels):
            for seed in range(seeds):
                status = trouble.get((label, seed), "finished")
                value = scale * (0.3 + 0.1 * k + 0.002 * seed * (k + 1))
                scores = dict.fromkeys(("minority_recall", "macro_recall"), value) if status == "finished" else {}
                results.append(Result(name, label, seed, status, scores))
    shown = {name: Setting(name, (), ("a",), (0,), np.array([3])) for name in names}
    return StudyResults("s", "", shown, tuple(labels), None if control is None else labels[control], tuple(results))


@pytest.fixture(scope="module", autouse=True)
def posthocs():
    """Loaded once, outside the clock of any test."""
    return pytest.importorskip("scikit_posthocs")


def test_table_reads_as_printed():
    lines = statistics_table(statistics(study(["fedavg", "la_post"]), scores=["macro_recall"]), UTF8).splitlines()
    assert lines[0] == "one: macro recall, against fedavg"
    assert " ".join(lines[2].split()) == "strategy seeds mean median effect of the effect l/t differ equal"
    assert set(lines[3]) == {"-"}
    # .300 to .310; sd of 0, 2, .. 10 is 3.7417, t(.975, 5) = 2.5706: half .00393
    assert lines[4] == "fedavg        6  0.305 ± 0.004   0.305"
    # differences .100 to .110; six pairs reach 2 / 2^6 = .031
    assert lines[5].split()[6:] == ["+0.105", "+0.100", "to", "+0.110", "6/0/0", ".031+", "1.000"]
    assert "macro recall over settings: ranks need at least 2 settings and 3 rows" in "\n".join(lines)
    assert "+ better, - worse at 95 %" in "\n".join(lines)


def test_trouble_is_shown_and_no_mark_given():
    spoil = [("b", 1, "diverged"), ("b", 4, "failed"), ("b", 5, "failed")]
    text = statistics_table(statistics(study(["fedavg", "b"], spoil=spoil, seeds=12), scores=["macro_recall"]), UTF8)
    assert "b: 1 diverged (seed 1), 2 failed (seeds 4, 5)" in text
    row = next(line for line in text.splitlines() if line.startswith("b "))
    assert "9/12" in row
    assert "9/3/0" in row
    assert ".004+" not in row
    assert ".004" in row
    assert "a run that diverged or failed loses" in text


def test_no_result_at_all_is_shown():
    spoil = [("b", seed, "failed") for seed in range(7)]
    text = statistics_table(statistics(study(["fedavg", "b"], spoil=spoil, seeds=7), scores=["macro_recall"]), UTF8)
    row = next(line for line in text.splitlines() if line.startswith("b "))
    assert row.split() == ["b", "0/7", "n/a", "n/a", "n/a", "n/a", "0/7/0", "n/a", "n/a"]
    assert "b: 7 failed\n" in text
    empty = StudyResults("s", "", {}, (), None, ())
    assert statistics_table(statistics(empty), UTF8) == "No results to compare."


def test_ranks_over_settings_and_too_few_seeds_are_told():
    found = statistics(study(["fedavg", "b", "c"], names=("x", "y", "z"), seeds=5), scores=["macro_recall"])
    text = statistics_table(found, UTF8)
    assert "macro recall over 3 settings, mean ranks (1 is best): c 1.00, b 2.00, fedavg 3.00" in text
    assert "Friedman: chi-square 6.000, p = .050; ranks closer than 1.91 do not differ significantly (Nemenyi)" in text
    assert "no significant difference: c, b\n" in text
    assert "5 seeds: the smallest p that 5 pairs can reach is .0625" in " ".join(text.split())


def test_without_a_control_the_table_stops_at_the_median():
    text = statistics_table(statistics(study(["a", "b"], control=None), scores=["macro_recall"]), UTF8)
    assert "effect" not in text
    assert text.splitlines()[0] == "one: macro recall"
    assert text.splitlines()[1].split() == ["strategy", "seeds", "mean", "median"]
    assert "no control" in text


def test_a_stream_without_unicode_gets_ascii():
    text = statistics_table(statistics(study(["fedavg", "µ"]), spread="bca"), ASCII)
    text.encode("ascii")
    assert "+- " in text
    assert "BCa interval" in text


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.text(max_size=120), min_size=1, max_size=4, unique=True),
    st.sampled_from([1e-3, 1.0, 99.9, 1e3, 1e7, 1e13]),
    st.text(max_size=120),
    st.booleans(),
)
def test_no_line_is_wider_than_99_columns_and_every_row_has_figures(labels, scale, setting, unicode):
    found = statistics(study(labels, names=(setting, setting + "x"), scale=scale), scores=["macro_recall"])
    lines = statistics_table(found, UTF8 if unicode else ASCII).splitlines()
    assert max(map(width, lines)) <= 99
    if scale == 1.0:
        assert sum("0.305 " in line for line in lines) == 2
    assert not math.isnan(found.summaries[setting, "macro_recall", labels[0]].mean)


def test_a_row_of_some_settings_only_is_shown_there_and_named_as_without_a_rank():
    whole = study(["fedavg", "b", "c", "d"], names=("x", "y"))
    results = tuple(r for r in whole.results if (r.setting, r.label) != ("y", "d"))
    part = StudyResults("s", "", whole.settings, whole.labels, "fedavg", results)
    text = statistics_table(statistics(part, scores=["macro_recall"]), UTF8)
    first, second = text.split("\n\n")[:2]
    assert "\nd " in first
    assert "\nd " not in second
    assert "no rank, because not in every setting or without this score: d\n" in text
