"""What goes wrong between real servers and nodes: nothing is lost, the site is named, the run goes on or is resumed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from behind_nginx import NGINX
from deployed import Study, assert_same, events, in_background, small_study, until, usable, wait_for_round, weights

from fedimb.deploy.coordinator.submit import _ASK_FLOWER_EVERY_S
from fedimb.deploy.coordinator.superlink import healthy
from fedimb.deploy.pki import make_site_key
from fedimb.engine import processes
from fedimb.errors import RunFailed
from fedimb.rundir.folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
]


class Coordinator:
    """``fedimb deploy up`` as a process of its own, which can be killed."""

    def __init__(self, study: Study) -> None:
        self.study, self.root = study, study.deployment.root
        self.up: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Both servers up."""
        words = [sys.executable, "-m", "fedimb", "deploy", "up", "--deployment", str(self.root)]
        with (self.root.parent / "up.log").open("ab") as log:
            self.up = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.root)
        until(lambda: "logs      " in (self.root.parent / "up.log").read_text()[self.said :], bool, 150)

    @property
    def said(self) -> int:
        """Characters of the log before this start."""
        return getattr(self, "_said", 0)

    def kill(self) -> None:
        """SIGKILL to the command and to everything it had noted."""
        self._said = len((self.root.parent / "up.log").read_text())
        noted = RunFolder(self.root / "state").read_json("servers.json")
        assert self.up is not None
        self.up.kill()
        self.up.wait()
        processes.end(noted["servers"])
        assert not healthy(self.study.deployment)

    def end(self) -> None:
        """As Ctrl-C does."""
        if self.up is not None:
            self.up.terminate()
            self.up.wait(60)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    study = small_study(tmp_path_factory.mktemp("faults"), {"linz": 60, "st-anna": 90, "va": 75}, "tracking=none")
    coordinator = Coordinator(study)
    try:
        coordinator.start()
        with study.nodes():
            with pytest.raises(Exception, match="waiting: linz"):
                study.execute(study.new())
            study.approve()
            yield coordinator
    finally:
        coordinator.end()


@pytest.fixture(autouse=True)
def _honest(up: Coordinator) -> Iterator[None]:
    yield
    up.study.honest()


@pytest.fixture(scope="module")
def expected(up: Coordinator, tmp_path_factory: pytest.TempPathFactory):
    """The run without a fault, simulated."""
    return up.study.simulated(tmp_path_factory.mktemp("simulated"))


def test_a_node_killed_in_a_round_is_asked_again(up: Coordinator, expected) -> None:
    study, folder = up.study, up.study.new()
    study.tamper("va", "sleep", [2], seconds=8, once=True)
    thread, said = in_background(lambda: study.execute(folder))
    study.signal_in("va", 2, signal.SIGKILL)
    thread.join(800)
    assert_same(said[0], expected)
    assert events(folder) == ["va is away; asked again when it is back"]


def test_a_node_restarted_in_a_round_is_asked_again(up: Coordinator, expected) -> None:
    """SIGTERM: it says goodbye, is back within its heartbeat, and Flower says nothing of the message it had taken."""
    study, folder = up.study, up.study.new()
    study.tamper("linz", "sleep", [2], seconds=8, once=True)
    thread, said = in_background(lambda: study.execute(folder))
    study.signal_in("linz", 2, signal.SIGTERM)
    thread.join(800)
    assert_same(said[0], expected)
    assert events(folder)
    assert all(text.startswith("linz ") and "asked again" in text for text in events(folder))


def test_killed_servers(up: Coordinator, expected) -> None:
    study, folder = up.study, up.study.new()
    thread, said = in_background(lambda: study.execute(folder))
    wait_for_round(folder, 1)
    up.kill()
    thread.join(200)
    assert isinstance(said[0], RunFailed)
    assert "fedimb deploy run --resume" in str(said[0])
    up.start()
    for site in study.homes:
        study.online(site)
    assert_same(study.execute(folder), expected)


def test_a_killed_server_app(up: Coordinator, expected) -> None:
    study, folder = up.study, up.study.new()
    thread, said = in_background(lambda: study.execute(folder))
    wait_for_round(folder, 1)
    (pid,) = folder.read_json("processes.json")["driver"]
    os.kill(int(pid), signal.SIGKILL)
    killed = time.monotonic()
    thread.join(60)
    assert (time.monotonic() - killed) / _ASK_FLOWER_EVERY_S < 1.5  # seen by itself or at the next question
    assert isinstance(said[0], RunFailed)
    assert "its process at the coordinator was killed" in str(said[0])
    assert_same(study.execute(folder), expected)


def test_changed_data(up: Coordinator, expected, tmp_path: Path) -> None:
    """Before the run: it does not begin, and nothing is lost. Within it: the site is left out, and named."""
    study, folder = up.study, up.study.new()
    table = up.root.parent / "linz.csv"
    shutil.copy2(table, tmp_path / "kept.csv")
    try:
        table.write_text(table.read_text().replace("ill", "well", 1))
        with pytest.raises(RunFailed, match=r"linz does not take part: linz failed in query\.join_site \(incident"):
            study.execute(folder)
    finally:
        shutil.copy2(tmp_path / "kept.csv", table)
    thread, said = in_background(lambda: study.execute(folder))
    wait_for_round(folder, 1)
    try:
        table.write_text(table.read_text() + "1,2,3,4,ill\n")
        thread.join(800)
    finally:
        shutil.copy2(tmp_path / "kept.csv", table)
    assert said[0].folder == folder.path
    assert events(folder)
    assert all(text.startswith("linz failed in ") for text in events(folder))
    other = study.new("seed=1")
    assert_same(study.execute(other), study.simulated(tmp_path, "seed=1"))


def test_replies_that_cannot_be_right_are_left_out_and_named(up: Coordinator) -> None:
    study, folder = up.study, up.study.new("rounds=3")
    study.tamper("va", "nan", [1])
    study.tamper("linz", "shape", [2])
    study.tamper("st-anna", "huge", [3])
    result = study.execute(folder)
    nan, shape, huge = events(folder)
    assert nan.startswith("va: the reply holds a value that is not finite")
    assert shape.startswith("linz: record 'arrays', '")
    assert re.match(r"st-anna's update is \de\+0[67] times as long as the others'", huge)
    assert usable(folder) == [2, 2, 2]
    assert all(abs(value).max() < 100 for value in weights(result).values())


def test_an_evil_site_is_left_out_by_real_servers(up: Coordinator) -> None:
    study, folder = up.study, up.study.new("rounds=3")
    study.tamper("va", "weight", [1])
    study.tamper("linz", "matrix", [2])
    result = study.execute(folder)
    said = [(one["site"], one["where"], one["record"], one["field"]) for one in result.left_out]
    assert said == [("va", "round 1", "metrics", "num-examples"), ("linz", "round 2", "x.confusion", "matrix")]
    assert "is 1e+15, allowed are 0 to" in events(folder)[0]
    assert usable(folder) == [2, 2, 3]
    assert set(result.without_site["fedavg"]) == set(study.homes)
    assert all(abs(value).max() < 100 for value in weights(result).values())


def test_a_slow_node_misses_the_deadline(up: Coordinator) -> None:
    study, folder = up.study, up.study.new("clients.deadline_s=40", "rounds=2")
    study.tamper("va", "sleep", [1], seconds=50)
    study.execute(folder)
    assert events(folder)[0] == "va: no reply within 40 s (clients.deadline_s); left out of this step"
    assert usable(folder)[0] == 2


def test_another_key_is_not_let_in(up: Coordinator, expected) -> None:
    study, folder = up.study, up.study.new(join_s=30)
    key = study.homes["va"].file("key")
    study.stop("va")
    before = key.read_bytes()
    try:
        key.write_bytes(make_site_key()[0])
        study.start("va")
        until(lambda: study.status("va"), lambda s: "305" in s.get("reason", ""), 200)
        with pytest.raises(RunFailed, match="va not online after 30 s"):
            study.execute(folder)
        study.stop("va")
    finally:
        key.write_bytes(before)
        if "va" not in study.running:
            study.start("va")
    study.online("va")
    assert_same(study.execute(folder), expected)
