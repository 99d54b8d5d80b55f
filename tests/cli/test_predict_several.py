"""``fedimb predict`` where rows have several labels: one probability per class, labels joined by |, and the card."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import launch_in

from fedimb.cli import main
from fedimb.data.new_rows import fitted_targets
from fedimb.errors import DataError
from fedimb.evaluation.multilabel import label_confusion

NAMES = ["mass", "nodule"]


def write(path, n=90, seed=0, bare=True):
    rng = np.random.default_rng(seed)
    targets = rng.random((n, 2)) < [0.5, 0.2]
    if not bare:
        targets[:, 0] |= ~targets.any(axis=1)
    x = 4.0 * targets @ np.array([[1.0, 0, 1], [0, 1, 1]]) + rng.normal(size=(n, 3))
    np.savez(path, x=x.astype(np.float32), y=targets)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def run(folder):
    source = f"data.source={{name: npz, path: '{write(folder / 'd.npz')}', class_names: {NAMES}}}"
    settings = ("data=npz", source, "data.test={name: stratified, fraction: 0.3}", "model=logistic", "loss=bce")
    return launch_in(folder, *settings, "rounds=2", "engine=inline", "local.lr=0.1", "evaluation.bootstrap=20")


def test_the_test_set_is_scored_as_the_run_scored_it(run, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["predict", str(run.folder), "--out", "p.csv"]) == 0
    with open("p.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    names = ["mass", "nodule", "none"]
    assert list(lines[0]) == ["row", "labels", *(f"score:{name}" for name in names), "true"]
    said, true = ([[name in line[key].split("|") for name in names] for line in lines] for key in ("labels", "true"))
    assert np.array_equal(label_confusion(true, said), run.confusion)
    assert "mass|nodule" in {line["labels"] for line in lines}
    scores = np.array([[float(line[f"score:{name}"]) for name in names] for line in lines])
    assert np.array_equal(scores > 0.5, said)
    out = capsys.readouterr().out
    assert f"macro recall {run.rows[0].final['macro_recall']:.3f}" in out
    assert "accuracy" not in out
    card = (folder / "p.csv.card.md").read_text()
    (rejected, false), (missed, hits) = run.confusion[1]
    mark = " (minority)" if 1 in run.minority else ""
    assert f"| nodule{mark} | {run.train_counts[1]} | {hits + missed} | {run.rows[0].recall[1][0]:.3f} |" in card
    assert f"| {hits / (hits + false):.3f} | {rejected / (rejected + false):.3f} |" in card
    assert "| macro specificity |" in card
    assert "accuracy" not in card
    assert "sigmoids of calibrated logits" in card
    low, high = run.rows[0].intervals["macro_recall"]
    assert f"{low:.3f} to {high:.3f}" in card


def test_a_file_without_a_row_of_no_label_is_scored_too_and_one_label_per_row_is_refused(run, folder):
    whole = {"name": "npz", "path": str(write(folder / "whole.npz", n=8, bare=False)), "class_names": NAMES}
    scored = run.model.predict(whole)
    assert scored.labels.shape == scored.scores.shape == (8, 3)
    assert not scored.labels[:, 2].any()
    np.savez(folder / "single.npz", x=np.zeros((4, 3), np.float32), y=[0, 1, 2, 0])
    with pytest.raises(DataError, match="the data are multiclass, the run's are multilabel"):
        run.model.predict({"name": "npz", "path": str(folder / "single.npz"), "class_names": [*NAMES, "none"]})


@pytest.mark.parametrize(
    ("given", "wanted", "width"),
    [
        (("a", "b"), ("a", "b"), 2),
        (("a", "b"), ("a", "b", "none"), 3),
        (("a", "b", "No Finding"), ("a", "b"), 2),
        (("a", "b"), ("a", "b", "c"), None),
        (("a", "b", "c"), ("a", "b"), None),
        (("b", "a"), ("a", "b", "none"), None),
    ],
)
def test_only_the_class_that_means_none_may_be_missing(given, wanted, width):
    store = SimpleNamespace(class_names=given, targets=np.ones((3, len(given)), np.uint8))
    if width is None:
        with pytest.raises(DataError, match="the data's classes are not the run's"):
            fitted_targets(store, np.array([0, 2]), wanted)
    else:
        targets = fitted_targets(store, np.array([0, 2]), wanted)
        assert targets.shape == (2, width)
        assert targets[:, : min(width, len(given))].all()
