"""A finished run as a study, and the command that gives it again."""

import json

import pytest

pytest.importorskip("hydra")

from small_runs import launch_in

from fedimb.config.compose import compose
from fedimb.config.load import config_sha
from fedimb.config.validate import validate
from fedimb.errors import FedimbError
from fedimb.report.html.run import command, study_of_run
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult


@pytest.fixture(scope="module")
def finished(cache_dir, tmp_path_factory):
    where = tmp_path_factory.mktemp("report")
    return launch_in(where, "engine=inline", "calibration=[none,la_post]", "rounds=2", "local.lr=0.3")


def test_rows_scores_and_counts_are_those_of_the_run(finished):
    study = study_of_run(finished.folder)
    assert study.labels == ("fedavg", "la_post")
    assert study.control == "fedavg"
    for row in RunResult.read(finished.folder).rows:
        (mine,) = study.of("default", row.label)
        assert mine.score("minority_recall") == row.metrics["minority_recall"]
        assert (mine.matrix == row.confusion).all()
        assert [at for at, _ in mine.curve] == [1, 2]
        assert mine.score("up_bytes") == finished.up_bytes
    setting = study.settings["default"]
    assert setting.counts.sum(axis=0).tolist() == setting.train_counts.tolist()
    assert setting.minority == finished.minority
    assert "torch" in study.facts["versions"]


def test_its_command_gives_the_same_configuration(finished):
    folder = RunFolder.open(finished.folder)
    config = folder.read_json("config.json")
    words = command(config).replace("'", "").split()
    assert words[:2] == ["fedimb", "run"]
    assert "local.lr=0.3" in words
    stored = study_of_run(finished.folder).results[0].sha
    assert config_sha(validate(compose(words[2:]))) == stored


def test_a_configuration_of_unknown_parts_is_pointed_to(finished):
    config = RunFolder.open(finished.folder).read_json("config.json")
    config = json.loads(json.dumps(config))
    config["data"]["source"] = {"name": "of_my_own"}
    assert "config.json" in command(config)


def test_an_unfinished_run_says_how_to_go_on(finished, tmp_path):
    (tmp_path / "config.json").write_text((finished.folder / "config.json").read_text())
    with pytest.raises(FedimbError, match="fedimb run --resume"):
        study_of_run(tmp_path)
