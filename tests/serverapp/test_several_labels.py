"""Several labels per row, from a file to the result: it learns, and what does not fit is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from small_runs import config, launch_in

from fedimb.config.combinations import Combination, refusal, tasks_of
from fedimb.config.validate import check_task, parts_of
from fedimb.errors import ConfigError
from fedimb.registry import Entry
from fedimb.report.panel import panels
from fedimb.report.table import result_panel
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.serverapp.launch import launch

RATES = np.array([0.5, 0.3, 0.08])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """240 rows whose labels can be read off their values; some have none, many several."""
    rng = np.random.default_rng(0)
    targets = rng.random((240, 3)) < RATES
    x = 3.0 * targets @ rng.normal(size=(3, 6)) + rng.normal(size=(240, 6))
    path = tmp_path_factory.mktemp("several") / "d.npz"
    np.savez(path, x=x.astype(np.float32), y=targets, sex=np.arange(240) % 2)
    return path


def several(file, *overrides):
    return (
        "data=npz",
        f"data.source.path={file}",
        "data.source.class_names=[effusion,mass,hernia]",
        "data.test={name: stratified, fraction: 0.3}",
        "data.validation=0.2",
        "model=logistic",
        "local.lr=0.1",
        "local.epochs=4",
        "engine=inline",
        *overrides,
    )


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    settings = ("loss=bce", "evaluation.bootstrap=100")
    return launch_in(tmp_path_factory.mktemp("runs"), *several(file, *settings))


def test_it_learns_every_class_and_says_so(run):
    assert run.task == "multilabel"
    assert run.class_names == ("effusion", "mass", "hernia", "none")
    assert run.minority == (2,)  # of the classes' 120, 72, 19 and some 78 rows
    row = run.rows[0]
    assert row.confusion.shape == (4, 2, 2)
    recall = np.array([r for r, _, _ in row.recall])
    specificity = row.confusion[:, 0, 0] / row.confusion[:, 0].sum(axis=1)
    assert (recall + specificity > 1.4).all()  # whatever is called without looking: 1
    assert row.final["minority_recall"] == recall[2]
    assert row.final["macro_recall"] == pytest.approx(recall.mean())
    assert row.final["defined_classes"] == 4
    assert not {"accuracy", "mcc"} & set(row.final)
    low, high = row.intervals["macro_recall"]
    assert low < row.final["macro_recall"] < high
    assert set(row.intervals) == set(row.final)
    for value, low, high in row.recall:
        assert low <= value <= high


def test_what_is_written_is_what_is_read(run):
    stored = json.loads((run.folder / "result.json").read_text())
    assert stored["task"] == "multilabel"
    assert stored["train_counts"] == run.train_counts.tolist()
    assert sum(stored["train_counts"]) > 168  # 70 % of 240 rows, many of which have several labels
    again = RunResult.read(run.folder)
    assert np.array_equal(again.confusion, run.confusion)
    assert json.loads((run.folder / "artifacts" / "model" / "model.json").read_text())["task"] == "multilabel"


def test_metrics_of_server_and_clients_are_there_and_learning_shows(run):
    lines = [line["metrics"] for line in RunFolder(run.folder).metrics()]
    keys = {"test/macro_recall", "test/recall/02_hernia", "client/macro_recall", "client/worst_minority_recall"}
    assert keys <= set(lines[-1])
    assert not [key for line in lines for key in line if "accuracy" in key]
    assert lines[-1]["train/loss"] < 0.7 * lines[0]["train/loss"]


def test_the_panel_shows_it(run):
    row = run.rows[0]
    panel = {
        "label": row.label,
        "class_names": run.class_names,
        "train_counts": run.train_counts,
        "matrix": row.confusion,
        "minority": run.minority,
        "last_k": row.metrics,
        "bytes": 1,
        "seconds": 1.0,
    }
    text = result_panel(panel)
    assert max(map(len, text.splitlines())) < 100
    assert re.search(rf"\nmacro recall +{row.final['macro_recall']:.3f} +{row.metrics['macro_recall']:.3f}\n", text)
    assert "macro specificity" in text
    assert "accuracy" not in text
    assert "hernia" in text
    assert "no intervals of means over classes" in text
    low, high = row.intervals["macro_recall"]
    assert f"{low:.3f} to {high:.3f}" in panels(run)


@pytest.fixture(scope="module")
def base(file, tmp_path_factory):
    """One configuration that fits; tests change it, as composing takes a second."""
    return config(*several(file, "loss=bce", f"output_dir={tmp_path_factory.mktemp('refused')}"))


def changed(base, augmentation=(), provenance="clear_sum", **parts):
    local = base.local.model_copy(update={"augmentation": [{"name": name} for name in augmentation]})
    prior = base.prior.model_copy(update={"provenance": provenance})
    return base.model_copy(update={"local": local, "prior": prior, **parts})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"loss": {"name": "ce"}},
            "loss 'ce' is for multiclass data, but these data are multilabel (several labels per row); use "
            "asymmetric_focal or bce or cfpl or ghm or vcb or weighted_bce",
        ),
        ({"calibration": {"none": {}, "la_post": {}}}, "calibration 'la_post' is for multiclass data"),
        (
            {"aggregator": {"name": "distil", "objectives": [{"name": "distil"}]}},
            "objective 'distil' is for multiclass data",
        ),
        (
            {"augmentation": ["flip", "class_composite"]},
            "use auto_augment or color_jitter or cutmix or",
        ),
        ({"loss": {"name": "weighted_bce"}, "provenance": "dp_sum"}, "its noise is calibrated for one label per row"),
        ({"loss": {"name": "weighted_bce"}, "provenance": "estimated"}, "set prior.provenance=secure_sum"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_run_folder(base, changes, says):
    with pytest.raises(ConfigError) as caught:
        launch(changed(base, **changes))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(Path(base.output_dir).iterdir())


def test_scores_by_subgroup_are_refused_before_there_is_a_run_folder(base):
    says = "data.subgroups needs one class per row, but these rows have several labels"
    with pytest.raises(ConfigError, match=says):
        launch(changed(base, data={**base.data, "subgroups": ["sex"]}))
    assert not list(Path(base.output_dir).iterdir())


def test_what_serves_both_is_accepted(base):
    check_task(base, "multiclass")
    check_task(changed(base, augmentation=["flip", "pad_crop", "noise"], provenance="estimated"), "multilabel")
    for term in ("proximal", "moon", "control_variate"):
        aggregator = "scaffold" if term == "control_variate" else "fedavg"
        one = changed(base, aggregator={"name": aggregator, "objectives": [{"name": term}]})
        check_task(one, "multilabel")
        assert ("objective", term) in {(part.kind, part.name) for part in parts_of(one)}


def test_a_part_without_the_flag_serves_one_label_per_row_and_two_that_share_no_task_never_meet():
    assert tasks_of(Entry("loss", "mine", object)) == ("multiclass",)
    assert tasks_of(Entry("sampler", "mine", object)) == ("multiclass", "multilabel")
    only = Entry("loss", "mine", object, {"tasks": ("multilabel",)})
    assert "have no task in common" in (refusal(Combination((only, Entry("calibration", "other", object)))) or "")
    assert refusal(Combination((only,))) is None


def test_samplers_deal_by_the_primary_class_and_counts_reach_the_loss(file, tmp_path):
    settings = ("loss=weighted_bce", "sampler=class_balanced", "rounds=1", "prior.provenance=secure_sum")
    result = launch_in(tmp_path, *several(file, *settings))
    assert result.prior_counts.tolist() == (result.train_counts - held_out(result)).tolist()


def held_out(result):
    """Validation rows that have each class."""
    from fedimb.data.federation import Federation

    federation = Federation.load(result.folder)
    return federation.store.class_counts(np.concatenate(federation.validation))
