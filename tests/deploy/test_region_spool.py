"""What a region's two programs leave in their folder, and that one coordinator answers."""

import os
import threading
from pathlib import Path

import pytest
from flwr.app import RecordDict

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.region_runs import RegionRuns
from fedimb.deploy.region_spool import SILENT_S, Ask, Spool, Unanswered
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


def test_a_question_without_a_limit_is_open_as_long_as_a_coordinator_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks = [100.0], [0]
    monkeypatch.setattr("fedimb.deploy.region_spool.time.monotonic", lambda: now[0])
    spool = Spool(tmp_path, "run")

    def hours_later() -> None:
        now[0] += SILENT_S * 0.9
        looks[0] += 1
        if looks[0] < 5:
            spool.at_work()
            os.utime(tmp_path / "state" / "region" / "run" / "at-work", ns=(looks[0], looks[0]))

    spool.wait = hours_later  # type: ignore[method-assign]
    with pytest.raises(Unanswered, match="no coordinator saw to this question for 1800 s: fedimb region run and"):
        spool.ask("train", "d", RecordDict())
    assert looks[0] == 6


def test_a_question_with_a_limit_is_open_until_then_though_its_coordinator_waits_for_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a query to join of a run with ``--join 7200``: while sites are awaited nobody touches ``at-work``."""
    now = [100.0]
    monkeypatch.setattr("fedimb.deploy.region_spool.time.monotonic", lambda: now[0])
    spool = Spool(tmp_path, "run")

    def an_hour_later() -> None:
        now[0] += 2 * SILENT_S
        if now[0] > 3 * SILENT_S:
            [ask] = spool.pending()
            spool.answer(ask, ask.content)

    spool.wait = an_hour_later  # type: ignore[method-assign]
    assert spool.ask("query", "join", RecordDict(), 6 * SILENT_S) == RecordDict()
    assert now[0] == 100 + 4 * SILENT_S


def test_a_question_whose_asker_was_killed_is_not_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, folder = Spool(tmp_path, "run"), tmp_path / "state" / "region" / "run"

    def killed() -> None:
        for path in folder.glob("*.ask"):
            path.rename(folder / "f00.ask")
        raise KeyboardInterrupt

    spool.wait = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        spool.ask("train", "d", RecordDict(), 50.0)
    [ask] = spool.pending()
    assert (ask.nonce, ask.wait_s) == ("f00", 50.0)
    assert 0 < ask.left_s() <= 50
    assert spool.pending(["f00"]) == []
    monkeypatch.setattr("fedimb.deploy.region_spool.time.time", lambda: ask.until - 500)
    assert ask.left_s() == 50  # a clock that was set back gives nobody more time
    monkeypatch.setattr("fedimb.deploy.region_spool.time.time", lambda: ask.until)
    assert spool.pending() == []


def test_a_second_coordinator_of_a_node_is_refused(tmp_path: Path) -> None:
    stop, runs = threading.Event(), RegionRuns(Deployment(tmp_path / "deployment"), tmp_path)
    stop.set()
    runs.watch(stop)
    with (
        locked(tmp_path / "state" / "region" / "run.lock", 0),
        pytest.raises(ConfigError, match="another fedimb region run answers for the node"),
    ):
        runs.watch(stop)
