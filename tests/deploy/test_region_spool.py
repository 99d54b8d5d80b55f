"""What a region's two programs leave in their folder, and that one coordinator answers."""

import threading
from pathlib import Path

import pytest
from flwr.app import RecordDict

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.region_runs import RegionRuns
from fedimb.deploy.region_spool import Ask, Spool, Unanswered
from fedimb.errors import ConfigError
from fedimb.tracking.lock import locked


def asked_and_given_up(spool: Spool) -> Ask:
    found: list[Ask] = []
    spool.wait = lambda: found.extend(spool.pending())  # type: ignore[method-assign]
    with pytest.raises(Unanswered, match="did not answer within"):
        spool.ask("train", "d", RecordDict(), 0.05)
    return found[0]


def test_an_answer_that_nobody_waits_for_is_not_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")
    ask = asked_and_given_up(spool)
    spool.answer(ask, RecordDict())
    spool.refuse(ask, 1, "too late")
    assert list((tmp_path / "state" / "region" / "run").iterdir()) == []


def test_an_answer_in_time_arrives(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "run")

    def answered() -> None:
        for ask in spool.pending():
            spool.answer(ask, ask.content)

    spool.wait = answered  # type: ignore[method-assign]
    assert spool.ask("train", "d", RecordDict(), 5) == RecordDict()


def test_a_second_coordinator_of_a_node_is_refused(tmp_path: Path) -> None:
    stop, runs = threading.Event(), RegionRuns(Deployment(tmp_path / "deployment"), tmp_path)
    stop.set()
    runs.watch(stop)
    with (
        locked(tmp_path / "state" / "region" / "run.lock", 0),
        pytest.raises(ConfigError, match="another fedimb region run answers for the node"),
    ):
        runs.watch(stop)
