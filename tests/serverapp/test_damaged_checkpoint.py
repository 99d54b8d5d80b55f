"""A run whose last checkpoint is damaged goes on from the one before, to the same weights and rows."""

import shutil
from pathlib import Path

import pytest
from seals import flip, rows_of
from small_runs import launch_in, weights_sha

from fedimb.errors import RunFailed
from fedimb.rundir.checkpoints import Checkpoints
from fedimb.rundir.result import RunResult
from fedimb.serverapp.checkpoint import FolderCheckpointer
from fedimb.serverapp.launch import resume

BASE = ("clients.count=3", "rounds=4", "evaluation.last_k=2")
METHODS = {
    "scope": (*BASE, "strategy=scope", "strategy.scope.warmup=2"),
    "fairfal": (*BASE, "strategy=fairfal", "strategy.fairfal.cycles=2", "rounds=2"),
    "scaffold": (*BASE, "aggregator=scaffold"),
    "every_second": (*BASE, "aggregator=scaffold", "checkpoint.every=2"),
}


class Stopped(BaseException):
    """Ends a run like a killed process."""


def stopped_after(monkeypatch, number: int, cwd: Path, *words: str) -> Path | None:
    """A run that ended right after its checkpoint of that number; None if it has fewer."""
    written = Checkpoints.write

    def write(self, *content):
        written(self, *content)
        if self._manifest.number == number:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", write)
        try:
            launch_in(cwd, *words)
        except Stopped:
            (folder,) = (cwd / "runs" / "default").iterdir()
            return folder
    return None


@pytest.mark.parametrize("method", ["scope", "fairfal"])
def test_a_damaged_last_checkpoint_costs_a_step(method, tmp_path, monkeypatch, caplog):
    words = (*METHODS[method], "engine=inline")
    whole = launch_in(tmp_path / "whole", *words)
    folder = stopped_after(monkeypatch, 4, tmp_path / "cut", *words)
    assert folder is not None
    flip(folder / "checkpoint.safetensors")
    resume(folder)
    assert "continuing from the checkpoint before" in caplog.text
    assert weights_sha(RunResult.read(folder)) == weights_sha(whole)
    assert rows_of(folder) == rows_of(whole.folder)


def test_a_state_lost_where_the_server_cannot_look_ends_the_run_and_costs_a_round(tmp_path, monkeypatch):
    """As at a site of a deployment: it is found when the site is asked, and not passed over as one missing reply."""
    words = (*METHODS["scaffold"], "engine=inline")
    whole = launch_in(tmp_path / "whole", *words)
    folder = stopped_after(monkeypatch, 3, tmp_path / "cut", *words)
    assert folder is not None
    flip(folder / "clients" / "client-000001" / "v000000003.safetensors")
    monkeypatch.setattr(FolderCheckpointer, "_check_states", lambda *_: None)
    with pytest.raises(RunFailed, match=r"round 4: client 1: .*state_lost.*continues from the checkpoint before"):
        resume(folder)
    resume(folder)
    assert weights_sha(RunResult.read(folder)) == weights_sha(whole)
    assert rows_of(folder) == rows_of(whole.folder)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_whichever_checkpoint_is_damaged_the_result_is_the_same(method, engine, tmp_path, monkeypatch, caplog):
    words = (*METHODS[method], f"engine={engine}")
    whole = launch_in(tmp_path / "whole", *words)
    # a Ray takes seconds to start; with few checkpoints there are few places to stop at
    every = 1 if engine == "inline" or method == "every_second" else 3
    number, fell_back = 2, 0
    while folder := stopped_after(monkeypatch, number, tmp_path / str(number), *words):
        flip(folder / "checkpoint.safetensors")
        if (folder / "checkpoint.before.safetensors").exists():
            resume(folder)
            fell_back += "continuing from the checkpoint before" in caplog.text
            assert weights_sha(RunResult.read(folder)) == weights_sha(whole), number
            assert rows_of(folder) == rows_of(whole.folder), number
        shutil.rmtree(tmp_path / str(number))
        number += every
    assert fell_back >= 2
