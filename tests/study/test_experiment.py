"""An MLflow experiment read back as a study."""

import math
import shutil
from types import SimpleNamespace

import pytest
from small_runs import config

from fedimb.errors import ConfigError
from fedimb.rundir.result import RunResult
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar
from fedimb.study.experiment import _result, of_experiment
from fedimb.tracking.mlflow import sync


@pytest.fixture(scope="module")
def tracked(cache_dir, template, tmp_path_factory):
    """Two seeds with two rows each, in MLflow and as run folders."""
    where = tmp_path_factory.mktemp("tracked")
    shutil.copy(template, where / "mlflow.db")
    found = {}
    for seed in (0, 1):
        words = ("calibration=[none,la_post]", f"seed={seed}", "tracking=mlflow", "study=both", "engine=inline")
        last = ("rounds=3", "evaluation.last_k=2", "clients.count=3", f"output_dir={where}")
        cfg = config(*words, *last)
        found[seed] = launch(cfg, None, ProgressBar(3, enabled=False), tracked=False)
        sync(found[seed].folder)
    return where, found


def test_it_holds_the_scores_of_the_run_folders(tracked):
    where, runs = tracked
    study = of_experiment("both", None, str(where))
    assert study.labels == ("fedavg", "la_post")
    assert study.control == "la_post"
    assert len(study.results) == 4
    for seed, run in runs.items():
        for row in RunResult.read(run.folder).rows:
            (found,) = [r for r in study.of("default", row.label) if r.seed == seed]
            assert found.status == "finished"
            for name in ("macro_recall", "minority_recall", "min_class_recall", "g_mean"):
                expected = row.metrics[name]
                assert found.score(name) == pytest.approx(expected, nan_ok=True), name
            assert found.matrix.tolist() == row.confusion.tolist()
            assert found.recall == pytest.approx([r[0] for r in row.recall], nan_ok=True)
            assert [step for step, _ in found.curve] == [1, 2, 3]
            assert found.score("up_bytes") == run.up_bytes
            assert found.score("steps") == run.steps
            assert math.isnan(found.score("total_cost"))
    assert study.settings["default"].class_names == tuple(str(digit) for digit in range(10))


def test_runs_that_differ_are_grouped_and_none_is_lost(template, tmp_path):
    shutil.copy(template, tmp_path / "mlflow.db")
    cases = [(), ("local.lr=0.1",), ("clients.count=1", "partition=iid")]
    for words in cases:
        base = ("tracking=mlflow", "study=several", "engine=inline", "rounds=1", "clients.count=3")
        cfg = config(*base, f"output_dir={tmp_path}", *words)
        sync(launch(cfg, None, ProgressBar(1, enabled=False), tracked=False).folder)
    study = of_experiment("several", None, str(tmp_path))
    assert {(r.setting, r.label) for r in study.results} == {
        ("count=3 partition=dirichlet", "fedavg local.lr=0.4"),
        ("count=3 partition=dirichlet", "fedavg local.lr=0.1"),
        ("count=1 partition=iid", "fedavg local.lr=0.4"),
    }
    assert set(study.settings) == {"count=3 partition=dirichlet", "count=1 partition=iid"}


def test_an_unknown_experiment_and_one_without_runs(tracked):
    where, _ = tracked
    with pytest.raises(ConfigError, match=r"MLflow has no experiment 'bth'\. Did you mean 'both'"):
        of_experiment("bth", None, str(where))
    with pytest.raises(ConfigError, match="'template' has no fedimb runs"):
        of_experiment("template", None, str(where))


@pytest.mark.parametrize(
    "said", [{"train/part": {3: 1.0, 4: 1.0}}, {"data/stage": {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0}}], ids=["now", "earlier"]
)
def test_a_training_in_parts_is_averaged_as_in_its_folder_and_compared_by_the_final_round(said):
    logged = {"test/macro_recall": {1: 0.1, 2: 0.2, 3: 0.7, 4: 0.9}, "test/g_mean": {3: 0.6, 4: 0.8}} | said

    def history(run_id, metric):
        return [SimpleNamespace(step=step, value=value) for step, value in logged[metric].items()]

    client = SimpleNamespace(get_metric_history=history, list_artifacts=lambda run_id: [])
    data = SimpleNamespace(tags={"fedimb.strategy": "two_stage"}, params={"evaluation.last_k": "3"}, metrics=logged)
    info = SimpleNamespace(run_id="r", status="FINISHED")
    found, _ = _result(client, SimpleNamespace(data=data, info=info))
    assert found.scores == {"macro_recall": pytest.approx(0.8), "g_mean": pytest.approx(0.7)}
    assert (found.final, found.averaged) == ({"macro_recall": 0.9, "g_mean": 0.8}, 2)
    assert [step for step, _ in found.curve] == [1, 2, 3, 4]
