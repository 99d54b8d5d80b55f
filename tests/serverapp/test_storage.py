"""Where a run is written: a place that cannot be used, a disk that fills up, a result that was deleted."""

import errno
import os

import pytest
from small_runs import launch_in, weights_sha

from fedimb.cli import main
from fedimb.errors import ConfigError, FedimbError, RunFailed, storage_reason
from fedimb.rundir.result import RunResult
from fedimb.serverapp.launch import resume


def fill_disk(monkeypatch, after: int) -> None:
    """Every write to disk fails from the one with number ``after``."""
    written, fsync = [], os.fsync

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/x"])
def test_an_output_dir_that_cannot_be_is_refused_in_one_line(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["run", "engine=inline", "tracking=none", f"output_dir={name}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fedimb: output_dir={name}: ")
    assert error.count("\n") == 1
    assert "choose" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_output_dir_without_write_access_is_refused_before_the_data_are_read(tmp_path, monkeypatch):
    from fedimb.serverapp import launch

    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    monkeypatch.setattr(launch, "prepare", lambda *args: pytest.fail("the data were prepared"))
    with pytest.raises(ConfigError, match=rf"output_dir={tmp_path}/runs: {tmp_path} is not writable"):
        launch_in(tmp_path, "engine=inline")


def test_a_full_disk_is_one_line_and_the_run_is_resumed_to_the_same_weights(tmp_path, cache_dir):
    whole = launch_in(tmp_path / "whole", "engine=inline")
    for number, after in enumerate((1, 13)):
        where = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            fill_disk(patch, after)
            with pytest.raises(RunFailed) as failed:
                launch_in(where, "engine=inline")
        (folder,) = (where / "runs" / "default").iterdir()
        message = str(failed.value)
        assert message.startswith(f"{folder}/")
        assert message.endswith(f"No space left on device; free some space there, then: fedimb run --resume {folder}")
        assert weights_sha(resume(folder)) == weights_sha(whole)


def test_a_disk_that_is_full_from_the_start_leaves_no_folder(tmp_path, cache_dir):
    launch_in(tmp_path / "warm", "engine=inline", "rounds=1")
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, 0)
        with pytest.raises(FedimbError, match=r"No space .* has not started"):
            launch_in(tmp_path, "engine=inline")
    assert not list((tmp_path / "runs" / "default").iterdir())


def test_a_deleted_result_is_named_and_written_again(tmp_path, cache_dir):
    done = launch_in(tmp_path, "engine=inline", "calibration=[none,la_post]")
    before = (done.folder / "result.json").read_bytes()
    (done.folder / "result.json").unlink()
    with pytest.raises(FedimbError, match=r"result\.json is missing: fedimb run --resume"):
        RunResult.read(done.folder)
    resume(done.folder)
    assert (done.folder / "result.json").read_bytes() == before


def test_other_errors_are_not_taken_for_the_disk():
    assert storage_reason(ConnectionResetError(errno.ECONNRESET, "reset")) is None
    assert storage_reason(OSError(errno.EPIPE, "broken pipe")) is None
    assert storage_reason(FileNotFoundError(errno.ENOENT, "No such file", "a method's own.csv")) is None
    assert storage_reason(PermissionError(errno.EACCES, "Permission denied", "a", None, "b")).startswith("b: Perm")
