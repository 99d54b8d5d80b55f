"""``fedimb predict``: the scores are those the run itself had, and the card says how far to trust them."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from seals import unseal
from small_runs import launch_in

from fedimb import registry
from fedimb.cli import main, predict, scoring
from fedimb.data.new_rows import check_classes
from fedimb.errors import ConfigError, DataError
from fedimb.evaluation.confusion import confusion_matrix
from fedimb.rundir import new_data
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(finished, home):
    """The finished run as ``runs/default/...`` of the working folder."""
    (home / "runs").mkdir()
    shutil.copytree(finished.folder.parent, home / "runs" / "default")
    return RunResult.read(home / "runs" / "default" / finished.folder.name)


@pytest.mark.parametrize("row", [0, 1])
def test_the_test_set_is_scored_as_the_run_scored_it(run, home, row, capsys):
    calibration = ("none", "la_post")[row]
    assert main(["predict", "fedavg", "--out", "test.csv", "--calibration", calibration]) == 0
    lines = read("test.csv")
    names = list(run.class_names)
    assert list(lines[0]) == ["row", "predicted", *(f"score:{name}" for name in names), "true"]
    true, predicted = ([names.index(line[key]) for line in lines] for key in ("true", "predicted"))
    assert (confusion_matrix(true, predicted, len(names)) == run.rows[row].confusion).all()
    scores = np.array([[float(line[f"score:{name}"]) for name in names] for line in lines])
    assert np.allclose(scores.sum(1), 1, atol=1e-4)
    assert (scores.argmax(1) == predicted).all()
    out = capsys.readouterr().out
    assert f"macro recall {run.rows[row].final['macro_recall']:.3f}" in out
    assert f"minority recall {run.rows[row].final['minority_recall']:.3f}" in out


def test_counts_that_follow_the_model_are_those_of_its_last_round(home):
    settings = ("engine=inline", "calibration=la_post", "prior.provenance=estimated", "local.epochs=4")
    result = launch_in(home, *settings)
    assert main(["predict", str(result.folder), "--out", "p.csv"]) == 0
    true, predicted = ([int(line[key]) for line in read("p.csv")] for key in ("true", "predicted"))
    assert (confusion_matrix(true, predicted, 10) == result.confusion).all()
    assert len(set(predicted)) > 1


def test_a_head_with_vertices_says_how_near_each_row_is_to_a_known_class(home):
    settings = ("engine=inline", "loss=dm_simplex", "model.head=simplex", "local.lr=0.01", "local.epochs=2")
    result = launch_in(home, *settings)
    assert main(["predict", str(result.folder), "--out", "p.csv"]) == 0
    known = np.array([float(line["known"]) for line in read("p.csv")])
    assert ((known > 0) & (known <= 1)).all()
    assert len(set(known)) > 10


def test_the_counts_of_the_prior_are_kept_and_an_older_folder_without_them_says_so(run, capsys):
    file = unseal(run.folder) / "result.json"
    result = json.loads(file.read_text())
    held_out = run.train_counts.sum() - sum(result["prior"]["counts"])
    assert 0 < held_out < 0.2 * run.train_counts.sum()  # the clients count what they train on
    assert result["prior"]["provenance"] == "train/data/clear_sum"
    assert (run.prior_counts == result["prior"]["counts"]).all()
    del result["prior"]
    file.write_text(json.dumps(result))
    model = run.folder / "artifacts" / "model" / "model.json"
    facts = json.loads(model.read_text())
    model.write_text(json.dumps({key: facts[key] for key in facts if key not in ("inputs", "prior_counts")}))
    assert main(["predict", "fedavg", "--out", "a.csv"]) == 0
    assert main(["predict", "fedavg", "--out", "b.csv", "--calibration", "la_post"]) == 2
    assert "keeps no class counts, which calibration 'la_post' needs" in capsys.readouterr().err


def test_the_first_calibration_is_the_default_and_an_unknown_one_refused(run, capsys):
    assert main(["predict", "fedavg", "--out", "a.csv"]) == 0
    assert main(["predict", "fedavg", "--out", "b.csv", "--calibration", "none"]) == 0
    assert read("a.csv") == read("b.csv")
    assert main(["predict", "fedavg", "--out", "c.csv", "--calibration", "la_pots"]) == 2
    assert "Did you mean 'la_post'?" in capsys.readouterr().err


def test_settings_name_other_data_and_rows_trained_on_are_said(run, capsys):
    assert main(["predict", "fedavg", "data=digits", "--out", "all.csv"]) == 0
    assert len(read("all.csv")) == 1797
    federation = json.loads((run.folder / "partition.json").read_text())
    trained = sum(map(sum, federation["counts"]))
    assert f"{trained} of these 1797 rows are ones the model was trained or validated on" in capsys.readouterr().err
    assert main(["predict", "fedavg", "--source", "name=digits", "--out", "same.csv"]) == 0
    assert read("all.csv") == read("same.csv")


def test_the_card_says_what_the_run_says(run, home):
    assert main(["predict", "fedavg", "--out", "p.csv", "--calibration", "la_post"]) == 0
    card = (home / "p.csv.card.md").read_text()
    assert f"| run | `default/{run.folder.name}` |" in card
    assert "| row | la_post |" in card
    assert "| class prior | clear_sum (view train, weighting data) |" in card
    row = run.rows[1]
    assert (
        f"| minority recall | {row.final['minority_recall']:.3f} | - | {row.metrics['minority_recall']:.3f} |" in card
    )
    for c, name in enumerate(run.class_names):
        recall, low, high = row.recall[c]
        mark = " (minority)" if c in run.minority else ""
        count, support = run.train_counts[c], row.confusion[c].sum()
        assert f"| {name}{mark} | {count} | {support} | {recall:.3f} | {low:.3f} to {high:.3f} |" in card
    assert re.search(r"\| date \| 20\d\d-\d\d-\d\d \d\d:\d\d UTC \|", card)
    assert "evaluation.bootstrap=0" in card


def test_the_card_warns_of_classes_nobody_can_judge(run, home):
    file = unseal(run.folder) / "result.json"
    result = json.loads(file.read_text())
    for row in result["rows"]:
        row["confusion"][3] = [0] * 10
        row["recall"][3] = [float("nan")] * 3
        row["confusion"][4] = [5, *[0] * 9]
        row["intervals"] = {"macro_recall": [0.25, 0.5]}
    result["train_counts"][5] = 0
    file.write_text(json.dumps(result))
    assert main(["predict", "fedavg", "--out", "p.csv"]) == 0
    card = (home / "p.csv.card.md").read_text()
    assert "recall is undefined and enters no mean: 3." in card
    assert "| undefined | - |" in card
    assert "hardly known: 4." in card
    never = next(line for line in card.splitlines() if "Never found in the test set: " in line)
    assert re.search(r"\b4\b", never)
    assert not re.search(r"\b3\b", never)  # without test rows nothing can be found
    assert "the model cannot know: 5." in card
    assert "| 0.250 to 0.500 |" in card
    assert "evaluation.bootstrap=0" not in card


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("a", "b"), "missing: c"),
        (("a", "b", "c", "d"), "unknown to the run: d"),
        (("a", "x", "c"), "missing: b; unknown to the run: x"),
        (("b", "a", "c"), "another order: class 0 is 'b', in the run 'a'"),
    ],
)
def test_another_class_list_is_refused_by_name(given, line):
    check_classes(("a", "b", "c"), ("a", "b", "c"))
    with pytest.raises(DataError, match=line):
        check_classes(given, ("a", "b", "c"))


def test_scores_by_subgroup_are_refused_in_words_and_never_left_out_silently(run, home, capsys, monkeypatch):
    words = ["predict", "fedavg", "data=digits", "--out", "x.csv"]
    assert main([*words[:3], "data.subgroups=[sex]", *words[3:]]) == 2
    assert "predictions are not scored by subgroup" in capsys.readouterr().err
    assert main([*words[:3], "data.limit=10", *words[3:]]) == 2
    assert "data.limit has no effect on predictions" in capsys.readouterr().err
    (home / "d.yaml").write_text("data:\n  source: {name: digits}\n  subgroups: [sex]\n")
    assert main(["predict", "fedavg", "d.yaml", "--out", "x.csv"]) == 2
    assert "predictions are not scored by subgroup" in capsys.readouterr().err
    assert not (home / "x.csv").exists()
    read_config = scoring.read_config

    def grouped(folder):
        config = read_config(folder)
        return config.model_copy(update={"data": {**config.data, "subgroups": ["site"]}})

    monkeypatch.setattr(scoring, "read_config", grouped)
    assert main(["predict", "fedavg", "--out", "x.csv"]) == 0
    assert "not scored by the run's data.subgroups" in capsys.readouterr().err


def test_other_classes_and_other_shapes_end_the_command(run, capsys):
    assert main(["predict", "fedavg", "data=synthetic_table", "data.source.rows=50", "--out", "x.csv"]) == 2
    assert "unknown to the run: class_0" in capsys.readouterr().err
    with registry.isolated():
        digits = registry.get("source", "digits").factory

        @registry.register("source", "wide_digits")
        class WideDigits(digits):
            def fingerprint(self):
                return "wide"

            def load(self):
                from dataclasses import replace

                data = super().load()
                return replace(data, x=np.repeat(data.x, 2, axis=3))

        with pytest.raises(DataError, match=r"a row of the data is \[1, 8, 16\], the run's are \[1, 8, 8\]"):
            run.model.predict({"name": "wide_digits"})


def test_an_unfinished_run_and_a_missing_folder(run, capsys):
    assert main(["predict", "fedavg", "--out", "no/such/folder/p.csv"]) == 2
    assert "no folder no/such/folder" in capsys.readouterr().err
    (run.folder / "result.json").unlink()
    assert main(["predict", "fedavg", "--out", "p.csv"]) == 1
    assert "result.json is missing: fedimb run --resume" in capsys.readouterr().err
    RunFolder(unseal(run.folder)).set_status("killed")
    assert main(["predict", "fedavg", "--out", "p.csv"]) == 1
    assert "is not finished (status: killed)" in capsys.readouterr().err


class _Toy:
    """A source that reads one path."""

    def __init__(self, path: str, label: str = "y", on_bad: str = "refuse") -> None:
        self.path = path


@pytest.fixture
def toy(monkeypatch):
    with registry.isolated():
        registry.register("source", "toy_npz")(_Toy)
        registry.register("source", "toy_csv")(_Toy)
        monkeypatch.setattr(
            new_data, "BY_SUFFIX", {".npz": ("toy_npz",), ".csv": ("other_csv", "toy_csv"), ".tsv": ("digits",)}
        )
        yield


def test_the_suffix_chooses_the_source(toy, tmp_path, run):
    for name in ("new.npz", "new.csv"):
        (tmp_path / name).touch()
    inputs = run.model.origin.inputs
    assert predict.source_of([str(tmp_path / "new.npz")], None, run) == {
        "name": "toy_npz",
        "path": str(tmp_path / "new.npz"),
    }
    # The source the run was trained with keeps its settings.
    trained = {"name": "toy_csv", "path": "old.csv", "label": "diagnosis"}
    assert new_data.source_for(Path("new.csv"), trained, inputs) == trained | {"path": str(tmp_path / "new.csv")}


def test_a_yaml_or_settings_name_the_source(tmp_path, run):
    (tmp_path / "a.yaml").write_text("# @package data\nsource: {name: npz, path: x.npz}\ntest: {name: official}\n")
    (tmp_path / "b.yml").write_text("name: npz\npath: x.npz\n")
    (tmp_path / "c.yaml").write_text("defaults: [{override /model: mlp}]\ndata: {source: {name: npz, path: x.npz}}\n")
    wanted = {"name": "npz", "path": "x.npz"}
    assert predict.source_of([str(tmp_path / "a.yaml")], None, run) == wanted
    assert predict.source_of([str(tmp_path / "b.yml")], None, run) == wanted
    assert predict.source_of([str(tmp_path / "c.yaml")], None, run) == wanted
    assert predict.source_of([], ["name=npz", "path=x.npz", "size=3"], run) == wanted | {"size": 3}
    assert predict.source_of([], None, run) is None


@pytest.mark.parametrize(
    ("words", "source", "error", "line"),
    [
        (["a.npz"], ["name=npz"], ConfigError, "not both"),
        (["gone.npz"], None, DataError, "gone.npz does not exist"),
        (["there.xlsx"], None, ConfigError, "no source is known for '.xlsx' files"),
        (["there.tiff", "there.tiff"], None, ConfigError, "give one file or folder"),
        (["empty.yaml"], None, ConfigError, "names no source"),
        (["bad.yaml"], None, ConfigError, "is not valid YAML"),
        ([], ["path=x"], ConfigError, "give name=..."),
        ([], ["name=npz", "x.npz"], ConfigError, "give name=..."),
        (["there.tsv"], None, ConfigError, "takes no path"),
    ],
)
def test_data_that_cannot_be_understood(toy, run, home, words, source, error, line):
    for name in ("there.tiff", "there.xlsx", "there.tsv"):
        (home / name).touch()
    (home / "empty.yaml").write_text("test: {name: official}\n")
    (home / "bad.yaml").write_text("a: [")
    with pytest.raises(error, match=re.escape(line)):
        predict.source_of(words, source, run)


def test_frames_in_order_get_the_classes_of_the_most_probable_sequence(run, home, capsys):
    from fedimb.evaluation.temporal import viterbi

    names, n = list(run.class_names), len(run.class_names)
    stays = np.full((n, n), 1.0) + 200 * np.eye(n)
    lines = [
        ",".join(["", *names]),
        *(",".join([name, *map(str, row)]) for name, row in zip(names, stays, strict=True)),
    ]
    Path("stay.csv").write_text("\n".join(lines) + "\n")
    x = np.random.default_rng(0).integers(0, 17, (40, *run.model.input_shape), dtype=np.uint8)
    np.savez("film.npz", x=x, ids=np.array([f"frame_{i:02d}" for i in range(40)]))
    assert main(["predict", "fedavg", "film.npz", "--out", "single.csv"]) == 0
    assert main(["predict", "fedavg", "film.npz", "--transitions", "stay.csv", "--out", "whole.csv"]) == 0
    np.savez("unpadded.npz", x=x, ids=np.array(sorted(f"frame_{i}" for i in range(40))))
    assert "most probable sequence of rows" in capsys.readouterr().err
    single, whole = read("single.csv"), read("whole.csv")
    scores = np.array([[float(line[f"score:{name}"]) for name in names] for line in single])
    wanted = viterbi(scores, stays / stays.sum(axis=1, keepdims=True))
    assert [line["predicted"] for line in whole] == [names[c] for c in wanted]
    assert [line["predicted"] for line in whole] != [line["predicted"] for line in single]
    assert [line[f"score:{names[0]}"] for line in whole] == [line[f"score:{names[0]}"] for line in single]
    for words, says in (
        (["--sequence", "x"], "--sequence goes with --transitions"),
        (["--transitions", "stay.csv", "--abstain-below", "0.9"], "leave out thresholds and --abstain-below"),
        (["film.npz", "--transitions", "none.csv"], "cannot be read as a CSV of transitions"),
        (["--transitions", "stay.csv"], "the run's own test rows are a sample: give the frames as DATA"),
        (["film.npz", "--transitions", "stay.csv", "--on-bad", "skip"], "would join frames that are not neighbours"),
        (["unpadded.npz", "--transitions", "stay.csv"], "'frame_2' comes after 'frame_19'"),
    ):
        assert main(["predict", "fedavg", "--out", "no.csv", *words]) == 2
        assert says in capsys.readouterr().err
        assert not Path("no.csv").exists()
