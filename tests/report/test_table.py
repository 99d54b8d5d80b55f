import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.report.table import comparison_table, result_panel
from fedimb.text import width

UTF8 = io.TextIOWrapper(io.BytesIO(), "utf-8")
ASCII = io.TextIOWrapper(io.BytesIO(), "ascii")


def run(label, seed, macro, minority=0.5, low=0.1, **more):
    metrics = {"macro_recall": macro, "minority_recall": minority, "min_class_recall": low}
    return {"label": label, "seed": seed, "metrics": metrics, "bytes": 3_200_000, "seconds": 41.2} | more


ROWS = [
    run("fedavg", 0, 0.70),
    run("fedavg", 1, 0.74),
    run("fedavg+la_post", 0, 0.80, 0.60),
    run("fedavg+la_post", 1, 0.84, 0.62),
    run("scope", 0, 0.99, 0.99, 0.99),
    run("scope", 1, math.nan, status="failed"),
]


def test_table_reads_as_printed():
    lines = comparison_table(ROWS, UTF8).splitlines()
    assert lines[0].split() == ["macro", "minority", "min-class", "MB"]
    assert lines[1].split() == ["strategy", "seeds", "recall", "recall", "recall", "sent", "seconds"]
    assert set(lines[2]) == {"-"}
    # t(.975, 1) = 12.706, sd = .04 / sqrt 2, so the half-width is 12.706 * .02
    assert lines[3] == "fedavg              2  0.720 ± 0.254   0.500 ± 0.000   0.100 ± 0.000*  3.20     41.2"
    assert lines[4] == "fedavg+la_post      2  0.820 ± 0.254*  0.610 ± 0.127*  0.100 ± 0.000*  3.20     41.2"
    assert lines[5] == "scope             1/2  0.990           0.990           0.990           3.20     41.2"
    assert lines[7] == "scope: 1 failed (seed 1); means over the other 1, no *"


def test_figures_stand_under_each_other():
    lines = comparison_table(ROWS, UTF8).splitlines()[3:6]
    assert len({line.index("0.") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1


def test_a_stream_without_unicode_gets_ascii():
    text = comparison_table([run("µ-fedavg", s, 0.5 + s / 10) for s in (0, 1)], ASCII)
    text.encode("ascii")
    assert "+- " in text
    assert "?-fedavg" in text


def test_one_seed_has_no_interval_and_one_label_no_star():
    text = comparison_table(ROWS[:1], UTF8)
    assert "0.700" in text
    assert "±" not in text
    assert "*" not in text
    assert comparison_table([], UTF8) == "No runs to compare."


def test_runs_without_any_result_stay_in_the_table():
    text = comparison_table([run("a", 0, 0.5), run("b", 7, 0.5, status="diverged", metrics={})], UTF8)
    assert "0/1" in text
    assert "n/a" in text
    assert "b: 1 diverged (seed 7); no result" in text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=150), min_size=1, max_size=5, unique=True), st.booleans())
def test_no_line_is_wider_than_99_columns_and_every_label_has_figures(labels, unicode):
    rows = [run(label, seed, 0.5 + seed / 10) for label in labels for seed in (0, 1)]
    lines = comparison_table(rows, UTF8 if unicode else ASCII).splitlines()
    assert max(map(width, lines)) <= 99
    assert sum("0.550" in line and line.rstrip().endswith("41.2") for line in lines) == len(labels)


def panel(matrix, train_counts, minority, names=None, stream=UTF8, **more):
    matrix = np.asarray(matrix)
    names = names or [f"c{i}" for i in range(len(matrix))]
    last_k = {"macro_recall": 0.611, "minority_recall": 0.411}
    result = {
        "label": "fedavg",
        "class_names": names,
        "train_counts": train_counts,
        "matrix": matrix,
        "minority": minority,
        "last_k": last_k,
        "bytes": 12_345_678,
        "seconds": 3.21,
    }
    return result_panel(result | more, stream)


MATRIX = np.array([[5, 5, 0], [0, 10, 0], [0, 0, 0]])


def test_panel_goes_from_head_to_tail():
    text = panel(MATRIX, [7, 100, 3], [0, 2], seed=4)
    lines = text.splitlines()
    assert lines[0] == "fedavg, seed 4  12.3 MB sent, 3.21 s"
    classes = [line for line in lines if line.split() and line[:3] in ("0 c", "1 c", "2 c")]
    head, middle, tail = classes
    assert head.split() == ["1", "c1", "100", "10", "1.000", "█" * 20, "0.72", "to", "1.00"]
    assert middle.split() == ["0", "c0", "<", "7", "10", "0.500", "█" * 10 + "·" * 10, "0.24", "to", "0.76"]
    assert tail.split() == ["2", "c2", "<", "3", "0", "n/a", "no", "test", "sample"]
    assert "1 of 3 classes have no test sample" in text


def test_panel_headline_says_final_round_and_last_k():
    line = next(line for line in panel(MATRIX, [7, 100, 3], [0, 2]).splitlines() if line.startswith("macro rec"))
    assert line.split()[2] == "0.750"
    assert line.split()[-1] == "0.611"
    undefined = next(line for line in panel(MATRIX, [7, 100, 3], [2]).splitlines() if "minority rec" in line)
    assert undefined.split()[2:] == ["n/a", "0.411"]


def test_panel_sums_up_the_middle_of_many_classes_and_says_so():
    n = 90
    text = panel(np.eye(n, dtype=int) * 4, np.arange(n), [0, 1], ["名" * 40] * n, ASCII, status="failed")
    text.encode("ascii")
    assert "fedavg (failed)" in text
    assert "... 50 classes between, mean recall 1.000" in text
    assert sum("####" in line for line in text.splitlines()) == 40
    assert max(map(len, text.splitlines())) <= 99


def test_panel_refuses_what_does_not_agree():
    with pytest.raises(ValueError, match="do not agree"):
        panel(MATRIX, [1, 2], [0])


def test_a_suspect_row_is_marked_and_counted():
    rows = [run("fedavg", 0, 0.1), run("fedavg", 1, 0.1), run("mine", 0, 0.5)]
    rows[1]["suspect"] = "predicts one class"
    text = comparison_table(rows, UTF8).splitlines()
    assert [line.split("  ")[0] for line in text[3:5]] == ["fedavg ?", "mine"]
    assert text[-1] == "? suspect, fedavg: 1 of 2 runs (seed 1): predicts one class"
    assert "suspect" not in comparison_table([*rows[:1], rows[2]], UTF8)


def test_the_panel_says_why_a_run_is_suspect_and_only_notes_a_minority_class_never_predicted():
    about = {
        "label": "fedavg",
        "class_names": ["a", "b", "c"],
        "train_counts": [90, 10, 1],
        "matrix": [[9, 1, 0], [2, 8, 0], [3, 0, 0]],
        "minority": [2],
        "last_k": {},
        "bytes": 0,
        "seconds": 1.0,
    }
    noted = result_panel(about, UTF8).splitlines()
    assert "never predicted: minority class 2" in noted
    assert "?" not in noted[0]
    marked = result_panel(about | {"suspect": "predicts one class"}, UTF8).splitlines()
    assert marked[0].startswith("fedavg ?  ")
    assert marked[2] == "suspect: predicts one class"
