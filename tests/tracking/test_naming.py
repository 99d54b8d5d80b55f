"""Names and settings of runs in MLflow: what a chart averages differs in nothing but the seed."""

import json

import pytest

from fedimb.config.compose import compose
from fedimb.config.load import flatten, row_label
from fedimb.config.validate import validate
from fedimb.tracking.mlflow import sync
from fedimb.tracking.naming import run_name, setting_of
from fedimb.tracking.store import connect
from tracking.conftest import runs


def row(*words: str, calibration: str = "none") -> dict[str, object]:
    """The row of ``rows.json`` of a run with these settings."""
    config = validate(compose(list(words)))
    tags = {"fedimb.seed": str(config.seed), "fedimb.calibration": calibration}
    return {"label": row_label(config, calibration), "tags": tags, "params": flatten(config)}


BASE = row()


@pytest.mark.parametrize(
    "words",
    ["seed=3", "study=other", "name=mine", "engine=inline", "tracking=none", "checkpoint.every=5", "output_dir=x"],
)
def test_what_changes_no_score_keeps_the_setting(words: str) -> None:
    assert setting_of(row(words)) == setting_of(BASE)


@pytest.mark.parametrize(
    "words",
    [
        "partition.alpha=0.1",
        "local.lr=0.2",
        "rounds=7",
        "data.n_max=90",
        "loss=focal",
        "model.hidden=[8]",
        "prior.provenance=dp_sum",
    ],
)
def test_any_other_difference_makes_another_setting(words: str) -> None:
    assert setting_of(row(words)) != setting_of(BASE)


def test_a_row_keeps_its_setting_beside_other_calibrations() -> None:
    alone = row("calibration=tau", calibration="tau")
    shared = row("calibration=[none,tau]", calibration="tau")
    assert setting_of(alone) == setting_of(shared)
    assert setting_of(alone) != setting_of(row("calibration=tau", "calibration.tau.tau=0.5", calibration="tau"))


def test_a_name_says_row_setting_and_seed() -> None:
    setting = setting_of(BASE)
    assert setting.startswith("digits imbalance=50 alpha=0.5 clients=10 mlp lr=0.4 #")
    assert run_name("fedavg", row("seed=4")) == f"fedavg, {setting}, seed 4"


def test_an_older_run_gets_its_name_and_setting_and_a_given_name_stays(folder, uri) -> None:
    folder.append(folder.line(1, a=1.0))
    sync(folder.path, uri, "study")
    (run,) = runs(uri)
    setting = setting_of(json.loads((folder.path / "rows.json").read_text())[0])
    assert (run.info.run_name, run.data.tags["fedimb.setting"]) == (f"fedavg, {setting}, seed 3", setting)
    client = connect(uri)
    client.delete_tag(run.info.run_id, "fedimb.setting")  # as 0.1 left it
    client.update_run(run.info.run_id, name="fedavg")
    state = json.loads((folder.path / "tracking.json").read_text())
    del state["named"]
    (folder.path / "tracking.json").write_text(json.dumps(state))
    assert sync(folder.path).sent_points == 0
    (run,) = runs(uri)
    assert (run.info.run_name, run.data.tags["fedimb.setting"]) == (f"fedavg, {setting}, seed 3", setting)
    client.update_run(run.info.run_id, name="the good one")
    (folder.path / "tracking.json").write_text(json.dumps(state))
    sync(folder.path)
    assert runs(uri)[0].info.run_name == "the good one"
