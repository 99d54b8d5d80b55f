"""A deployed run whose last checkpoint is damaged goes on from the one before, to the same weights and rows."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from behind_nginx import NGINX
from deployed import Study, here, in_background, small_study, until, wait_for_round, weights
from seals import flip, rows_of

from fedimb.deploy.coordinator.servers import Servers
from fedimb.errors import FedimbError
from fedimb.rundir.result import RunResult
from fedimb.rundir.seal import SEAL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
]

METHODS = {
    "scope": ("strategy=scope", "strategy.scope.warmup=1", "rounds=4"),
    "fairfal": ("strategy=fairfal", "strategy.fairfal.cycles=2", "strategy.fairfal.budget=5", "rounds=4"),
    "scaffold": ("aggregator=scaffold", "rounds=4"),
}


@pytest.fixture(params=METHODS)
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Study]:
    made = small_study(tmp_path, {"linz": 60, "st-anna": 90}, "tracking=none", *METHODS[request.param])
    with Servers(made.deployment, here()), made.nodes():
        with pytest.raises(FedimbError, match="waiting: linz"):
            made.execute(made.new())
        made.approve()
        yield made


def sorted_already(times: list[int]) -> bool:
    return times == sorted(times)


def killed_after(study: Study, rounds: int):
    """A run whose process at the coordinator was killed after so many rounds."""
    folder = study.new()
    study.tamper("linz", "sleep", [rounds + 1], seconds=10, once=True)
    thread, said = in_background(lambda: study.execute(folder))
    wait_for_round(folder, rounds)
    # the round's line comes before its checkpoint, which is to be there to be damaged
    until(lambda: [(folder.path / name).stat().st_mtime_ns for name in ("metrics.jsonl", SEAL)], sorted_already, 60)
    (pid,) = folder.read_json("processes.json")["driver"]
    os.kill(int(pid), signal.SIGKILL)
    thread.join(120)
    assert isinstance(said[0], FedimbError)
    study.honest()
    return folder


def test_a_damaged_last_checkpoint_costs_a_round(study: Study) -> None:
    whole = study.execute(study.new())
    folder = killed_after(study, 3)
    flip(folder.path / "checkpoint.safetensors")
    result = study.execute(folder)
    assert "checkpoint before" in (folder.path / "journal.jsonl").read_text()
    assert isinstance(result, RunResult)
    mine, theirs = weights(result), weights(whole)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert rows_of(folder.path) == rows_of(whole.folder)
