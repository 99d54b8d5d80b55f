"""``fedimb predict`` for new patients: rows without labels, refused where they are not like the run's."""

import csv
import json

import numpy as np
import pytest
from small_runs import launch_in

import fedimb
from fedimb.cli import main
from fedimb.data.sources.table_arrow import open_arrow
from fedimb.errors import ConfigError

NAMES = ("ill, severe", "well")


def table(path, n, seed, labelled=True, order=None, **changed):
    """A table with ids, missing values and categories; ``changed``: column -> function of its text."""
    rng = np.random.default_rng(seed)
    ill = rng.random(n) < 0.3
    columns = {
        "pid": [f"P{i:03d}" for i in range(n)],
        "age": [f"{v:.1f}" for v in rng.normal(60 + 9 * ill, 9)],
        "dose": [f"{v:.1f}" if i % 9 else "" for i, v in enumerate(rng.normal(5000 + 700 * ill, 400))],
        "stage": rng.choice(["I", "II", "III"], n).tolist(),
    }
    if labelled:
        columns["diag"] = [NAMES[0] if one else NAMES[1] for one in ill]
    for name, change in changed.items():
        columns[name] = [change(text) for text in columns.get(name, [""] * n)]
    names = order or list(columns)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*(columns[name] for name in names), strict=True))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("new-rows")


@pytest.fixture(scope="module")
def run(cache_dir, folder):
    """A finished run on such a table, with validation rows and two calibrations."""
    path = table(folder / "train.csv", 240, 0)
    source = f"data.source={{name: tabular_csv, files: ['{path}'], target: diag, drop: [pid], categorical: [stage]}}"
    settings = ("data=tabular_csv", source, "data.n_max=null", "data.validation=0.25", "calibration=[none,la_post]")
    return launch_in(folder, *settings, "engine=inline", "model=logistic", "clients.count=2", "local.lr=0.1")


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def predict(run, *words):
    return main(["predict", str(run.folder), *map(str, words)])


def test_rows_without_labels_get_the_scores_of_labelled_ones_and_keep_their_ids(run, folder):
    table(folder / "labelled.csv", 30, 1)
    table(folder / "new.csv", 30, 1, labelled=False)
    assert predict(run, "labelled.csv", "--drop", "pid", "--out", "labelled_out.csv") == 0
    assert predict(run, "new.csv", "--id", "pid", "--out", "new_out.csv") == 0
    wanted, found = read("labelled_out.csv"), read("new_out.csv")
    assert list(found[0]) == ["row", "id", "predicted", *(f"score:{name}" for name in NAMES)]
    assert [line["id"] for line in found] == [f"P{i:03d}" for i in range(30)]
    assert {line["predicted"] for line in found} == set(NAMES)
    assert [line | {"true": ""} for line in wanted] == [
        {key: value for key, value in line.items() if key != "id"} | {"true": ""} for line in found
    ]
    assert wanted[0].keys() - found[0].keys() == {"true"}


def test_columns_in_another_order_are_found_by_name_and_said(run, folder, capsys):
    table(folder / "new.csv", 20, 2, labelled=False)
    table(folder / "other.csv", 20, 2, labelled=False, order=["stage", "dose", "pid", "age"])
    for name in ("new", "other"):
        assert predict(run, f"{name}.csv", "--id", "pid", "--out", f"{name}_out.csv") == 0
    assert (folder / "new_out.csv").read_bytes() == (folder / "other_out.csv").read_bytes()
    assert "columns are in another order than in training and were matched by name" in capsys.readouterr().err


def test_categories_and_missing_marks_are_the_training_rows_own(run, folder):
    """A file with two of the three categories, or other columns with gaps, would else be encoded in another way."""
    plain = [("age", lambda text: text)]
    for i, changes in enumerate((plain, [("stage", lambda _: "III")], [("dose", lambda _: "")])):
        table(folder / "part.csv", 12, 3, labelled=False, **dict(changes))
        said = fedimb.load_model(run.folder).predict(folder / "part.csv", id_column="pid")
        x = np.zeros((12, 6), np.float32)
        for row, line in enumerate(read("part.csv")):
            x[row, 0], x[row, 1] = float(line["age"]), float(line["dose"] or "nan")
            x[row, 2 + ["I", "II", "III"].index(line["stage"])] = 1
            x[row, 5] = not line["dose"]
        assert run.model.origin.inputs.columns.inputs[5] == "dose missing", i
        assert np.array_equal(said.scores, run.model.predict(x).scores)


@pytest.mark.parametrize(
    ("changed", "order", "words", "line"),
    [
        ({}, ["pid", "age", "stage"], ["--id", "pid"], "lacks column 'dose' that the run was trained on"),
        (
            {"ward": lambda _: "7"},
            None,
            [],
            "'ward' that the run was not trained on: name the rows' ids with --id",
        ),
        ({"stage": lambda _: "IV"}, None, ["--id", "pid"], "category 'IV' is not listed (I, II, III)"),
        ({"age": lambda _: "old"}, None, ["--id", "pid"], "40 bad rows: "),
        ({"pid": lambda _: ""}, None, ["--id", "pid"], "the id (column 'pid') is empty"),
        ({"dose": lambda text: text and f"{float(text) * 1000}"}, None, ["--id", "pid"], "column 'dose' has mean"),
        ({}, None, ["--id", "nope"], "--id names 'nope'"),
        ({}, None, ["--drop", "age"], "--drop age: the run was trained on this column"),
        ({}, None, ["--id", "pid", "--abstain-below", "0.5"], "the highest of 2 scores is never below 0.5"),
        ({}, None, ["--id", "pid", "--abstain-below", "0.8", "--recall", "0.9"], "are two rules for one decision"),
        ({}, None, ["--id", "pid", "--recall", "1.5"], "recall=1.5: give a number above 0 and at most 1"),
        ({}, None, ["--id", "pid", "--recall", "0.9", "--class", "wel"], "Did you mean 'well'?"),
        ({}, None, ["--id", "pid", "--class", "well"], "go with --recall or --best-f1"),
        ({}, None, ["--id", "pid", "--best-f1"], "best F1 is for rows with several labels"),
    ],
)
def test_one_line_for_what_does_not_fit_and_no_file(run, folder, capsys, changed, order, words, line):
    table(folder / "bad.csv", 40, 4, labelled=False, order=order, **changed)
    (folder / "none.csv").unlink(missing_ok=True)
    assert predict(run, "bad.csv", *words, "--out", "none.csv") == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert not [file for file in folder.iterdir() if "none.csv" in file.name]


def test_another_layout_and_other_marks_of_missing_values_are_given_with_the_source(run, folder, capsys):
    table(folder / "gaps.csv", 30, 5, labelled=False, age=lambda text: text if text < "70" else "")
    table(folder / "marks.csv", 30, 5, labelled=False, age=lambda text: text if text < "70" else "-999")
    (folder / "marks.csv").write_text((folder / "marks.csv").read_text().replace(",", ";"))
    source = ("--source", "name=tabular_csv", "target=diag", "files=[marks.csv]", "delimiter=';'")
    assert predict(run, "gaps.csv", "--id", "pid", "--out", "gaps_out.csv") == 0
    assert predict(run, *source, "missing_values={age: [-999]}", "--id", "pid", "--out", "marks_out.csv") == 0
    assert (folder / "gaps_out.csv").read_bytes() == (folder / "marks_out.csv").read_bytes()
    capsys.readouterr()
    assert predict(run, *source, "missing_values={Age: [-999]}", "--id", "pid", "--out", "none.csv") == 2
    assert "missing_values names 'Age', which the run does not read. Did you mean 'age'?" in capsys.readouterr().err


def test_a_file_of_data_is_never_written_over(run, folder, capsys):
    table(folder / "fresh.csv", 40, 9)
    table(folder / "new.csv", 30, 8, labelled=False)
    before = {name: (folder / name).read_bytes() for name in ("fresh.csv", "new.csv", "train.csv")}
    (folder / "link.csv").symlink_to("elsewhere.csv")
    chosen = ("--recall", "0.9", "--choose-on", "fresh.csv", "--id", "pid")
    source = ("--source", "name=tabular_csv", "target=diag", "files=[new.csv]", "--id", "pid")
    for words, line in (
        (("new.csv", *chosen, "--out", "fresh.csv"), "--out fresh.csv is a file of data"),
        ((*source, "--out", "new.csv"), "--out new.csv is a file of data"),
        (("new.csv", "--id", "pid", "--out", "train.csv"), "--out train.csv is a file of data"),
        (("new.csv", "--id", "pid", "--out", "link.csv"), "it is a link or a device, and would be replaced"),
        (("new.csv", "--id", "pid", "--out", "/dev/null"), "it is a link or a device, and would be replaced"),
        (("new.csv", "--id", "pid", "--out", run.folder / "result.json"), "result.json is a file of the run"),
        (("--id", "pid", "--out", "none.csv"), "--id goes with DATA"),
        (("--drop", "pid", "new.csv", "--out", "none.csv"), "--drop goes with DATA, which comes before it"),
    ):
        assert predict(run, *words) == 2
        assert line in capsys.readouterr().err
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_a_label_column_that_is_dropped_is_not_read(run, folder, capsys):
    table(folder / "old.csv", 20, 5, diag=lambda _: "unknown")
    assert predict(run, "old.csv", "--id", "pid", "--out", "old_out.csv") == 2
    assert "label 'unknown' is not a class of the run" in capsys.readouterr().err
    assert predict(run, "old.csv", "--id", "pid", "--drop", "diag", "--out", "old_out.csv") == 0
    assert "true" not in read("old_out.csv")[0]


def test_thresholds_chosen_on_the_rows_that_are_predicted_are_said(run, folder, capsys):
    table(folder / "fresh.csv", 40, 9, order=["age", "dose", "stage", "diag"])
    words = ("fresh.csv", "--recall", "0.9", "--class", "well", "--class", "well", "--choose-on", "fresh.csv")
    assert predict(run, *words, "--out", "fresh_out.csv") == 0
    said = capsys.readouterr()
    assert "the thresholds were chosen on these rows" in said.err
    assert said.out.count("well: score from") == 1


def test_an_unreadable_row_is_left_out_on_request_and_the_others_keep_their_numbers(run, folder, capsys):
    table(folder / "bad.csv", 10, 5, labelled=False, age=lambda text: text)
    lines = (folder / "bad.csv").read_text().splitlines()
    lines[4] = lines[4].replace(",", ",x", 1)
    (folder / "bad.csv").write_text("\n".join(lines))
    assert predict(run, "bad.csv", "--id", "pid", "--on-bad", "skip", "--out", "some.csv") == 0
    assert [line["row"] for line in read("some.csv")] == [str(i) for i in range(10) if i != 3]
    assert "left out 1 bad rows, first: " in capsys.readouterr().err


def test_csv_json_and_parquet_hold_the_same(run, folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    table(folder / "new.csv", 30, 6, labelled=False)
    words = ("--id", "pid", "--calibration", "la_post", "--probabilities", "--abstain-below", "0.7")
    for suffix in ("csv", "json", "jsonl", "parquet"):
        assert predict(run, "new.csv", *words, "--out", f"same.{suffix}") == 0
    lines = read("same.csv")
    assert list(lines[0])[3:] == [f"{kind}:{name}" for kind in ("score", "probability") for name in NAMES]
    objects = json.loads((folder / "same.json").read_text())
    assert objects == [json.loads(line) for line in (folder / "same.jsonl").read_text().splitlines()]
    stored = parquet.read_table("same.parquet").to_pylist()
    assert 0 < sum(line["predicted"] == "" for line in lines) < 30
    for line, one, row in zip(lines, objects, stored, strict=True):
        assert list(line) == list(one) == list(row)
        assert (line["id"], line["predicted"] or None) == (one["id"], one["predicted"]) == (row["id"], row["predicted"])
        for name in list(line)[3:]:
            assert float(line[name]) == one[name] == pytest.approx(row[name], rel=1e-5)


def test_a_parquet_table_gives_what_the_same_csv_gives(run, folder):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table(folder / "new.csv", 30, 7, labelled=False)
    lines = read("new.csv")
    columns = {name: [line[name] for line in lines] for name in lines[0]}
    for name in ("age", "dose"):
        columns[name] = [float(text) if text else None for text in columns[name]]
    parquet.write_table(pa.table(columns), "new.parquet", row_group_size=7)
    model = fedimb.load_model(run.folder)
    csv_said, said = (model.predict(f"new.{suffix}", id_column="pid") for suffix in ("csv", "parquet"))
    assert np.array_equal(csv_said.scores, said.scores)
    assert csv_said.ids == said.ids


def test_booleans_of_a_parquet_table_are_those_of_the_training_text(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"smokes": [True, False, None], "ill": [False, True, True]}), tmp_path / "t.parquet")
    for spelled, rows in (
        ({}, [["1", "0"], ["0", "1"], ["", "1"]]),
        ({"smokes": ("False", "True")}, [["True", "0"], ["False", "1"], ["", "1"]]),
        ({"smokes": ("0", "1"), "ill": ("false",)}, [["1", "false"], ["0", "true"], ["", "true"]]),
    ):
        assert [fields for _, fields in open_arrow(str(tmp_path / "t.parquet"), spelled).records] == rows


def test_thresholds_are_chosen_on_validation_rows_and_what_they_reach_is_said(run, folder, capsys):
    table(folder / "new.csv", 30, 8, labelled=False)
    assert predict(run, "new.csv", "--id", "pid", "--recall", "0.9", "--class", NAMES[0], "--out", "t.csv") == 0
    out, card = capsys.readouterr().out, (folder / "t.csv.card.md").read_text()
    model = fedimb.load_model(run.folder)
    chosen = model.choose_thresholds(recall=0.9, classes=[NAMES[0]])
    federation = fedimb_federation(run)
    assert chosen.rows == len(federation.validation.rows) > 0
    (one,) = chosen.achieved
    assert one.recall >= 0.9
    x, y = federation.store.x[federation.validation.rows], federation.store.y[federation.validation.rows]
    held = model.predict(x, thresholds=chosen)
    assert ((held.predicted == 0) & (y == 0)).sum() == round(one.recall * (y == 0).sum())
    for text in (out, card):
        assert f"for recall 0.9, chosen on the run's {chosen.rows} validation rows" in text.lower()
        assert f"{NAMES[0]}: score from {one.value:.4g}, recall {one.recall:.3f}" in text
    said = model.predict("new.csv", id_column="pid", thresholds=chosen)
    assert [line["predicted"] for line in read("t.csv")] == list(said.classes)
    assert (said.predicted == np.where(said.scores[:, 0] >= one.value, 0, 1)).all()


def fedimb_federation(run):
    from fedimb.data.federation import Federation

    return Federation.load(run.folder)


def test_thresholds_are_never_chosen_on_the_test_set_nor_on_training_rows(run, folder, capsys):
    table(folder / "fresh.csv", 40, 9, order=["age", "dose", "stage", "diag"])
    table(folder / "new.csv", 30, 8, labelled=False, order=["age", "dose", "stage"])
    words = ("new.csv", "--recall", "0.9", "--out", "c.csv", "--choose-on")
    assert predict(run, *words, "fresh.csv") == 0
    assert "chosen on " in capsys.readouterr().out
    assert predict(run, *words, "train.csv") == 2
    assert "is the data of the run, test set included" in capsys.readouterr().err
    lines = (folder / "train.csv").read_text().splitlines(keepends=True)
    federation = fedimb_federation(run)
    for kind, rows in (("test", federation.test), ("training", federation.train.rows)):
        (folder / "part.csv").write_text(lines[0] + "".join(lines[1 + row] for row in rows[:40]))
        assert predict(run, *words, "part.csv") == 2
        assert f"are in the run's {kind} set" in capsys.readouterr().err
        known = [lines[1 + row].split(",", 1)[1] for row in rows[:10]]  # without pid, as fresh.csv
        (folder / "mixed.csv").write_text((folder / "fresh.csv").read_text() + "".join(known))
        assert predict(run, *words, "mixed.csv") == 2
        assert f"10 of the 50 rows of {folder / 'mixed.csv'} are in the run's {kind} set" in capsys.readouterr().err
    assert predict(run, *words, "new.csv") == 2
    assert "has no labels: thresholds are chosen on labelled rows" in capsys.readouterr().err


def test_rows_the_model_has_seen_are_known_by_their_contents(run, folder, capsys):
    """A part of the training file, in another order and without labels, is not new patients."""
    lines = (folder / "train.csv").read_text().splitlines()
    federation = fedimb_federation(run)
    seen = [*federation.train.rows[:7], *federation.validation.rows[:3]]
    part = [lines[0], *(lines[1 + row] for row in (*seen, *federation.test[:5]))]
    (folder / "part.csv").write_text("".join(",".join(line.split(",")[:4]) + "\n" for line in part))
    assert predict(run, "part.csv", "--id", "pid", "--out", "part_out.csv") == 0
    assert "10 of these 15 rows are ones the model was trained or validated on" in capsys.readouterr().err
    table(folder / "fresh.csv", 40, 9)
    assert predict(run, "fresh.csv", "--id", "pid", "--out", "fresh_out.csv") == 0
    assert "trained or validated on" not in capsys.readouterr().err


def test_a_run_without_validation_rows_says_where_thresholds_can_come_from(tmp_path, capsys):
    result = launch_in(tmp_path, "engine=inline", "rounds=1")
    assert main(["predict", str(result.folder), "--recall", "0.9", "--out", str(tmp_path / "p.csv")]) == 2
    assert "no validation rows to choose thresholds on (data.validation=0), and its test set" in capsys.readouterr().err


def test_python_refuses_what_an_array_cannot_say(run, folder):
    pandas = pytest.importorskip("pandas")
    model = run.model
    x = np.zeros((3, 6), np.float32)
    rule = model.choose_thresholds(recall=0.9, classes="well", calibration="la_post")
    assert model.predict(x, thresholds=rule, calibration="la_post").predicted.shape == (3,)
    for refused, line in (
        (lambda: model.predict(x, thresholds=rule), "chosen for the scores of calibration 'la_post', not of 'none'"),
        (lambda: model.choose_thresholds(recall=0.9, classes=[]), "classes is empty"),
        (lambda: model.predict(x, id_column="pid"), "an array has no names of columns"),
        (lambda: model.predict(pandas.DataFrame(x)), "a table with named columns is read from a file"),
        (lambda: model.prepare(pandas.DataFrame(x)), "a table with named columns is read from a file"),
    ):
        with pytest.raises(ConfigError, match=line):
            refused()


def test_a_suspect_run_is_named_beside_its_predictions(tmp_path, capsys):
    result = launch_in(tmp_path, "engine=inline", "rounds=2", "local.lr=1e-30")
    capsys.readouterr()
    assert main(["predict", str(result.folder), "--out", str(tmp_path / "p.csv")]) == 0
    assert "fedimb: the run is suspect: no round of 2 moved the weights" in capsys.readouterr().err
    assert "- The run is suspect: no round of 2 moved" in (tmp_path / "p.csv.card.md").read_text()


def test_a_copy_of_the_model_is_enough(run, folder):
    table(folder / "new.csv", 30, 10, labelled=False)
    words = {"calibration": "la_post", "id_column": "pid"}
    whole = fedimb.load_model(run.folder).predict("new.csv", **words)
    alone = fedimb.load_model(run.folder / "artifacts" / "model").predict("new.csv", **words)
    assert np.array_equal(whole.scores, alone.scores)
    assert not np.array_equal(whole.scores, whole.probabilities)
    facts = (run.folder / "artifacts" / "model" / "model.json").read_text()
    assert str(folder) not in facts  # it may be handed on: no path of this machine
