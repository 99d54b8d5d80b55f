"""A batch: finished runs are read and not repeated, a failed one does not end the others."""

import pytest
from small_runs import config

from fedimb.errors import RunFailed
from fedimb.run.batch import finished, run_all, run_batch
from fedimb.run.result import RunResult


def test_what_is_finished_is_not_repeated_and_a_failure_is_one_of_the_answers(tmp_path):
    words = ("engine=inline", "rounds=1", f"output_dir={tmp_path}", "study=s")
    good, other = (config(*words, f"seed={seed}") for seed in (0, 1))
    bad = config(*words, "local.lr=1e30", "loss=balanced_softmax")
    first = list(run_batch([good, bad, other]))
    assert [type(result) for result in first] == [RunResult, RunFailed, RunResult]
    with pytest.raises(RunFailed):
        list(run_all([good, bad]))
    folders = sorted((tmp_path / "s").iterdir())
    again = list(run_all([good, other]))
    assert [result.folder for result in again] == [first[0].folder, first[2].folder]
    assert sorted((tmp_path / "s").iterdir()) == folders
    assert set(finished([tmp_path / "s"]).values()) == {first[0].folder, first[2].folder}


def test_a_run_whose_configuration_cannot_be_read_is_not_reused(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "result.json").write_text("{}")
    (tmp_path / "old" / "config.json").write_text('{"seed": 3}')
    assert finished([tmp_path]) == {}


def test_nothing_to_run(tmp_path):
    assert list(run_batch([])) == []
