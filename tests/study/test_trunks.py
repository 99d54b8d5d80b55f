"""Runs that differ in a post-hoc calibration's arguments train once; their numbers are those of separate runs."""

import json

import pytest
from small_runs import config, weights_sha

from fedimb.config.load import from_json
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar
from fedimb.study.folders import of_runs
from fedimb.study.sweep import sweep_tasks
from fedimb.study.trunks import share_trunks
from fedimb.study.work import Task

TAUS = (0.5, 1.0, 2.0)


def task(where, tau):
    words = ("engine=inline", "rounds=2", "calibration=la_post", f"calibration.la_post.tau={tau}")
    return Task.of("run", config(*words, f"output_dir={where}"), f"tau={tau}", [f"tau={tau}"])


def run(one):
    cfg = from_json(one.config)
    return launch(cfg, None, ProgressBar(cfg.rounds, enabled=False))


def scores_by_round(result, label):
    lines = [line["metrics"] for line in RunFolder(result.folder).metrics() if line["row"] == label]
    return [{name: value for name, value in line.items() if name.startswith("test/")} for line in lines]


@pytest.fixture(scope="module")
def both(cache_dir, tmp_path_factory):
    """The same three taus as one run and as three."""
    where = tmp_path_factory.mktemp("trunks")
    tasks = [task(where, tau) for tau in TAUS]
    (joined,), places = share_trunks(tasks)
    return run(joined), [run(one) for one in tasks], [places[one.key][1]["la_post"] for one in tasks]


def test_every_tau_has_the_numbers_of_a_run_of_its_own(both):
    shared, apart, keys = both
    assert keys == ["la_post", "la_post:2", "la_post:3"]
    assert {weights_sha(result) for result in apart} == {weights_sha(shared)}
    for at, own in enumerate(apart):
        places = ((shared, at), (own, 0))
        curves = [scores_by_round(result, result.rows[row].label) for result, row in places]
        assert curves[0] == curves[1]
        stored = [json.loads((result.folder / "result.json").read_text())["rows"][row] for result, row in places]
        assert stored[0] | {"label": ""} == stored[1] | {"label": ""}
    assert len({str(row.confusion) for row in shared.rows}) > 1  # they do differ


def test_its_rows_are_named_as_those_of_separate_runs(both):
    shared, apart, _ = both
    labels = [f"la_post calibration.la_post.tau={tau}" for tau in TAUS]
    assert [row.label for row in RunResult.read(shared.folder).rows] == labels
    assert list(of_runs([shared.folder], "s").labels) == labels
    assert list(of_runs([result.folder for result in apart], "s").labels) == labels
    assert shared.folder.name.startswith("la_post-s0-")


def test_a_sweep_over_tau_is_one_run_per_seed_and_model():
    words = ["calibration=la_post", "calibration.la_post.tau=0.5,1,2", "seed=0,1", "local.lr=0.1,0.2"]
    configs, tasks = sweep_tasks(words)
    assert (len(configs), len(tasks)) == (12, 4)
    assert all(len(from_json(one.config).calibration) == 3 for one in tasks)
    assert len(sweep_tasks(["calibration=none,la_post"])[1]) == 2  # as before


def test_predictions_are_made_with_any_of_them(both, tmp_path):
    from fedimb.cli.scoring import Options, score_to

    shared, apart, keys = both
    for key, own in zip(keys, apart, strict=True):
        files = tmp_path / f"{keys.index(key)}.csv", tmp_path / f"{keys.index(key)}-own.csv"
        score_to(shared, None, files[0], Options(calibration=key))
        score_to(own, None, files[1], Options(calibration="la_post"))
        assert files[0].read_text() == files[1].read_text()
