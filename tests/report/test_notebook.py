"""Results as a notebook shows them: frames hold what the CSV and JSON hold, tables what the commands print."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from fedimb.report.document import Report, study_page
from fedimb.report.study_tables import study_table
from fedimb.rundir.result import RowResult, RunResult
from fedimb.study.compare import RECORD, Compared
from fedimb.study.design import Row, Study
from fedimb.study.results import write_csv

from .html.reading import Page
from .html.studies import HOSTILE, failed, plain, result, setting, study


def run_result(classes=3):
    names = tuple(f"class {c}" for c in range(classes))
    recall = [[0.9 - 0.1 * c, 0.1, 0.95] for c in range(classes - 1)] + [[math.nan] * 3]
    scores = {"minority_recall": 0.8, "macro_recall": 0.85, "min_class_recall": 0.8, "accuracy": 0.875}
    row = RowResult("fedavg", scores, scores, np.eye(classes, dtype=np.int64), {}, recall, probability={"ece": 0.125})
    counts = np.arange(classes, 0, -1) * 100
    more = {"client_seconds": 2.5, "steps": 40.0, "server_steps": 12.0, "labels": 600.0}
    return RunResult(Path("runs/default/fedavg-s3-0a"), (row,), 10**6, 2 * 10**6, 1.5, counts, names, (1,), 3, **more)


def test_a_frame_of_a_study_has_the_lines_of_its_csv(tmp_path):
    made = study([*plain().results, failed("fedavg", 3)])
    with write_csv(made.results, tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    found = made.to_frame()
    assert list(found.columns) == list(lines[0])
    assert len(found) == len(lines) == 7
    for line, (_, row) in zip(lines, found.iterrows(), strict=True):
        for name, text in line.items():
            value = row[name]
            if isinstance(value, str):
                assert text == value
            else:
                assert float(text or "nan") == pytest.approx(value, rel=1e-5, nan_ok=True), name


def test_a_table_of_a_study_has_the_figures_that_are_printed():
    made = study([*plain().results, failed("fedavg", 3)])
    seen = Page(Compared(made, Path("runs/trial"), ["failed <b>: why"])._repr_html_())
    rows = seen.rows("row", "seeds", "minority recall", "macro recall")
    assert rows["fedavg"] == ["3/4", "0.150 ± 0.124", "0.633 ± 0.041", "n/a", "5", "2.5"]
    printed = study_table(made)
    assert all(cell.split()[0] in printed for cells in rows.values() for cell in cells[1:3])
    assert "1 runs did not finish: failed <b>: why" in seen.text


def test_settings_have_a_table_each_and_names_stay_text():
    rows = [result(HOSTILE, 0, (20, 15, 2), setting=name) for name in ("easy", "hard")]
    rows[1] = replace(rows[1], suspect="one class is predicted")
    seen = Page(study(rows, [setting("easy"), setting("hard")])._repr_html_())
    assert len(seen.tables) == 2
    assert not seen.of("script")
    assert [table[1][0] for table in seen.tables] == [HOSTILE, f"{HOSTILE} ?"]


def test_a_run_as_frames_and_as_tables():
    done = run_result()
    (line,) = done.to_frame().to_dict("records")
    costs = {"up_bytes": 10**6, "down_bytes": 2 * 10**6, "client_seconds": 2.5, "steps": 40.0, "labels": 600.0}
    costs["server_steps"] = 12.0
    assert line == {"row": "fedavg", "seed": 3, "ece": 0.125, **done.metrics, **costs, "suspect": ""}
    by_class = done.to_frame("classes")
    assert by_class["class"].tolist() == ["class 0", "class 1", "class 2"]
    assert by_class["minority"].tolist() == [False, True, False]
    assert by_class["train_rows"].tolist() == [300, 200, 100]
    assert by_class["recall"].tolist()[:2] == [0.9, 0.8]
    seen = Page(done._repr_html_())
    assert seen.rows("row", "minority recall")["fedavg"] == ["0.800", "0.850", "0.800", "0.875"]
    classes = seen.rows("class, head to tail")
    assert classes["class 1 (minority)"] == ["200", "0.800 (0.10 to 0.95)"]
    assert classes["class 2"] == ["100", "n/a"]
    with pytest.raises(ValueError, match="give 'rows' or 'classes'"):
        done.to_frame("recall")


def test_the_middle_of_many_classes_is_left_out_of_the_table_alone():
    done = run_result(30)
    seen = Page(done._repr_html_())
    assert len(seen.rows("class, head to tail")) == 20
    assert "10 classes between are not shown" in seen.text
    assert len(done.to_frame("classes")) == 30


def test_a_report_is_a_frame_in_a_notebook_and_a_file_when_saved(tmp_path):
    report = Report('<p class="a">&amp;</p>')
    (frame,) = Page(report._repr_html_()).of("iframe")
    assert frame["srcdoc"] == report.text
    assert report.save(tmp_path / "r.html").read_text() == report.text


def test_a_studys_page_tests_equality_within_the_studys_own_margin(tmp_path):
    named = Study(name="trial", rows={"a": Row(words=())}, margin=0.35)
    (tmp_path / RECORD).write_text(json.dumps({"study": named.model_dump()}))
    assert "p to be equal within 0.35" in study_page(plain(), tmp_path)
