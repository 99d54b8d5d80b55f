"""What result.json says beyond the confusion matrix: probabilities, clients, cost; and folders that lack it."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from seals import unseal
from sklearn import metrics as sklearn_metrics
from small_runs import launch_in

from fedimb.contracts.platform import PART
from fedimb.data.federation import Federation
from fedimb.evaluation.probabilities import PROBABILITY_SCORES
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult, of_last_part

NEW = ("probability", "auroc", "auprc", "worst_client", "mean_client", "best_client", "defined_clients")
EFFORT = ("client_seconds", "steps", "labels")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two calibrations, clients of very different label mixes, rows held back for validation."""
    words = ("partition=dirichlet", "partition.alpha=0.2", "data.validation=0.2", "data.imbalance_factor=10")
    prior = ("calibration=[none,la_post]", "prior.provenance=clear_sum")
    return launch_in(tmp_path_factory.mktemp("runs"), "engine=inline", *words, *prior)


@pytest.fixture(scope="module")
def calibrated(run):
    """(labels [n], probabilities [n, C] by row), from the stored model alone."""
    federation = Federation.load(run.folder)
    rows = np.asarray(federation.store.x[federation.test], np.float32) * federation.store.scale
    with torch.no_grad():
        logits = run.model.classifier(torch.from_numpy(rows)).double().numpy()
    counts = run.prior_counts
    shares = []
    for adjusted in (logits, logits - np.log(counts / counts.sum())):
        powers = np.exp(adjusted - adjusted.max(1, keepdims=True))
        shares.append(powers / powers.sum(1, keepdims=True))
    return np.asarray(federation.store.y[federation.test]), shares


def test_probabilities_are_those_the_prediction_is_made_from(run, calibrated):
    labels, shares = calibrated
    assert len(run.rows) == 2
    for row, own in zip(run.rows, shares, strict=True):
        assert np.array_equal(sklearn_metrics.confusion_matrix(labels, own.argmax(1), labels=range(10)), row.confusion)
        assert list(row.probability) == list(PROBABILITY_SCORES)
        assert row.probability["log_loss"] == pytest.approx(sklearn_metrics.log_loss(labels, own), rel=1e-4)
        truth = np.eye(10)[labels]
        auroc = sklearn_metrics.roc_auc_score(truth, own, average=None)
        assert row.auroc == pytest.approx(auroc, abs=1e-4)
        assert row.auprc == pytest.approx(sklearn_metrics.average_precision_score(truth, own, average=None), abs=1e-3)
        assert row.probability["auroc"] == pytest.approx(np.mean(row.auroc))
        assert row.probability["auprc"] == pytest.approx(np.mean(row.auprc))
        assert row.probability["brier"] == pytest.approx(((own - truth) ** 2).sum(1).mean(), rel=1e-4)
    plain, adjusted = run.rows
    assert plain.probability["log_loss"] != adjusted.probability["log_loss"]


def test_clients_are_judged_by_what_they_hold(run):
    held = Federation.load(run.folder).counts
    for row in run.rows:
        recall = np.diag(row.confusion) / row.confusion.sum(1)
        each = [own @ recall / own.sum() for own in held if own.sum()]
        expected = (min(each), np.mean(each), max(each), len(each))
        assert (row.worst_client, row.mean_client, row.best_client, row.defined_clients) == pytest.approx(expected)
        assert row.worst_client < row.best_client


def test_effort_is_what_the_rounds_logged_once(run):
    lines = [line["metrics"] for line in RunFolder(run.folder).metrics() if line["row"] == run.rows[1].label]
    assert len(lines) == 3
    assert run.steps == sum(line["train/steps"] for line in lines) > 0
    assert run.client_seconds == pytest.approx(sum(line["time/client_s"] for line in lines))
    assert 0 < run.client_seconds < 60
    assert run.labels == run.train_counts.sum()


def test_a_method_that_logs_its_labels_is_believed(tmp_path, monkeypatch):
    from fedimb.strategies.plain import Plain

    monkeypatch.setattr(Plain, "on_train_replies", lambda self, n, replies: {"data/labelled": 10.0 * n}, raising=False)
    assert launch_in(tmp_path, "engine=inline").labels == 30


def test_of_several_labels_per_row_the_sigmoid_counts_and_no_client_is_judged(tmp_path):
    rng = np.random.default_rng(0)
    targets = rng.random((160, 3)) < (0.5, 0.4, 0.2)
    x = (3.0 * targets @ rng.normal(size=(3, 5)) + rng.normal(size=(160, 5))).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=targets)
    data = ("data=npz", f"data.source.path={tmp_path}/d.npz", "data.test={name: stratified, fraction: 0.3}")
    result = launch_in(tmp_path, *data, "model=logistic", "loss=bce", "local.lr=0.1", "engine=inline")
    (row,) = result.rows
    federation = Federation.load(result.folder)
    truth = np.asarray(federation.store.targets)[federation.test]
    with torch.no_grad():
        logits = result.model.classifier(torch.from_numpy(np.array(federation.store.x[federation.test]))).double()
    shares = logits.sigmoid().numpy()
    assert row.probability["brier"] == pytest.approx(((shares - truth) ** 2).mean(), rel=1e-4)
    expected = [sklearn_metrics.roc_auc_score(truth[:, c], shares[:, c]) for c in range(truth.shape[1])]
    assert row.auroc == pytest.approx(expected, abs=1e-3)
    assert math.isnan(row.probability["ece"])
    assert 0 < row.probability["classwise_ece"] < 1
    assert math.isnan(row.worst_client)
    assert math.isnan(row.mean_client)
    assert row.defined_clients == 0
    assert result.labels == federation.train_sizes.sum() < result.train_counts.sum()  # rows, not marks


def test_an_older_folder_still_reads(run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run.folder, old)
    stored = json.loads((old / "result.json").read_text())
    assert set(NEW) < set(stored["rows"][0])
    for row in stored["rows"]:
        for name in NEW:
            del row[name]
    for name in EFFORT:
        del stored[name]
    (unseal(old) / "result.json").write_text(json.dumps(stored))
    result = RunResult.read(old)
    assert result.metrics == run.metrics
    assert (result.rows[0].probability, result.rows[0].auroc, result.rows[0].defined_clients) == ({}, [], 0)
    assert np.isnan([result.rows[0].worst_client, result.client_seconds, result.steps, result.labels]).all()


def test_means_are_over_rounds_of_the_last_part_of_a_training():
    def kept(*lines):
        scored = [{"test/macro_recall": 0.5, "n": n, **line} for n, line in enumerate(lines)]
        return [line["n"] for line in of_last_part(scored)]

    assert kept({}, {}) == [0, 1]
    assert kept({}, {PART: 1.0}, {}, {PART: 1.0}) == [1, 2, 3]  # a line that does not say is of the part before
    assert kept({PART: 1.0}, {PART: 1.0}) == [0, 1]
    assert kept({PART: 1.0}, {PART: 2.0}, {PART: 3.0, "model/replaced": 1.0}) == [2]
    assert kept({}, {"model/replaced": 1.0}, {}) == [1, 2]  # of an earlier version
    for said in ("data/phase", "data/stage", "data/cycle"):  # of earlier versions, whose rounds say no part
        assert kept({said: 1.0}, {said: 2.0}, {}, {said: 2.0}) == [1, 2, 3]
        assert kept({said: 1.0}, {}, {said: 1.0}) == [0, 1, 2]
    assert kept({"data/phase": 1.0}, {"data/phase": 2.0, PART: 1.0}, {"data/phase": 2.0, PART: 1.0}) == [1, 2]
    begun = [{"test/macro_recall": 0.1}, {PART: 1.0}, {"test/macro_recall": 0.2}]
    assert of_last_part(begun) == begun[2:]  # a part that begins with a round that is not scored
