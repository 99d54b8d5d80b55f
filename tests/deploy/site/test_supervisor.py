"""The supervisor, with shell scripts in Flower's place: when it starts what, what it says, and what a kill leaves."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from fedimb.cli import main
from fedimb.deploy.home import NODE_HOME, NodeHome
from fedimb.deploy.site import supervisor as supervisors
from fedimb.deploy.site.limits import Disk
from fedimb.deploy.site.node_process import Timings
from fedimb.deploy.site.observe import Observation
from fedimb.deploy.site.status import format_iso, judge, read_status
from fedimb.deploy.site.supernode import RECORD
from fedimb.deploy.site.supervisor import Supervisor
from fedimb.engine.processes import record, start_time
from fedimb.errors import ConfigError

SHORT = Timings(restart_s=0.2, again_s=0.05, steady_s=60, stop_s=5, check_s=0.01, write_s=0.02, observe_s=0.02)
LIVES = 'echo "INFO : SuperNode ID: 7"; exec sleep 60'
NOT_LET_IN = 'echo "ERROR : Exit Code: 305"; echo "Failed to initialize the connection"; exit 1'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeHome:
    root = tmp_path / "st-anna größe"
    root.mkdir()
    (root / "node.yaml").write_text("site: st-anna\nlimits: {hours: '08:00-18:00'}\nabsent: ['2026-12-24']\n")
    monkeypatch.setattr(supervisors, "observe", lambda _: Observation(disk=Disk(1, 10**12, None)))
    return NodeHome.open(root)


DAY = datetime(2026, 11, 23, 12, 0).timestamp()


def watching(home: NodeHome, script: str, offset: float = 0.0, ask: str | None = None) -> Supervisor:
    """A supervisor over ``sh -c script``; its noon is now, shifted by ``offset`` seconds."""
    began = time.time()
    return Supervisor(
        home,
        SHORT,
        command=lambda _: (["sh", "-c", script], dict(os.environ)),
        ask=lambda _: (ask, []),
        clock=lambda: DAY + offset + time.time() - began,
    )


@contextlib.contextmanager
def running(supervisor: Supervisor) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield thread
    finally:
        supervisor.stop()
        thread.join(10)
        assert not thread.is_alive()


def until(true: Callable[[], object], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def state(home: NodeHome) -> str:
    with contextlib.suppress(ConfigError):
        return read_status(home).state
    return ""


def test_a_node_runs_and_ends_when_asked(home: NodeHome) -> None:
    with running(watching(home, LIVES)):
        until(lambda: state(home) == "running")
        found = read_status(home)
        assert found.node is not None
        assert start_time(found.node) is not None
        assert found.connected is not None
        assert judge(found, DAY)[0] == 0
    assert state(home) == "stopped"
    assert start_time(found.node) is None
    assert not home.file(*RECORD).exists()
    assert judge(read_status(home), DAY)[0] == 2


def test_a_dead_process_is_started_again_later_each_time(home: NodeHome) -> None:
    times = home.root / "times"
    with running(watching(home, f"date +%s.%N >> {shlex.quote(str(times))}; exit 1")):
        until(lambda: times.exists() and len(times.read_text().split()) >= 3)
    at = [float(one) for one in times.read_text().split()]
    assert at[1] - at[0] >= SHORT.restart_s
    assert at[2] - at[1] >= 2 * SHORT.restart_s
    assert read_status(home).restarts >= 2


def test_the_reason_is_told_and_sharpens(home: NodeHome) -> None:
    """A first 305 may be the coordinator's memory of the process before; a second one cannot."""
    with running(watching(home, NOT_LET_IN)):
        until(lambda: state(home) == "failed")
        first = read_status(home).reason
        assert "305" in first
        assert "takes up to 60 seconds" in first
        assert "next start at 2026-" in first
        until(lambda: "not registered" in read_status(home).reason)
        assert judge(read_status(home), DAY)[0] == 2


def test_hours_and_days_of_absence_end_and_start_it(home: NodeHome) -> None:
    six_hours = 6 * 3600.0
    supervisor = watching(home, LIVES, offset=six_hours - 1.0)  # its hours end in a second
    with running(supervisor):
        until(lambda: state(home) == "running")
        pid = read_status(home).node
        until(lambda: state(home) == "absent")
        found = read_status(home)
        assert start_time(pid or 0) is None
        assert judge(found, DAY + six_hours)[0] == 0  # planned, no fault
        assert "2026-11-24 08:00" in found.reason
        assert found.node is None
        supervisor._clock = lambda: DAY + 24 * 3600  # the next noon
        until(lambda: state(home) == "running")


def test_it_is_absent_on_its_days(home: NodeHome) -> None:
    with running(watching(home, LIVES, offset=datetime(2026, 12, 24, 12).timestamp() - DAY)):
        until(lambda: state(home) == "absent")
        assert "2026-12-25 00:00" in read_status(home).reason


def test_a_full_disk_stops_it_until_there_is_space(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "observe", lambda _: Observation(disk=Disk(200, 10**12, 100)))
    with running(watching(home, LIVES)):
        until(lambda: state(home) == "failed")
        assert "limits.disk_gb" in read_status(home).reason
        assert read_status(home).node is None
        monkeypatch.setattr(supervisors, "observe", lambda _: Observation(disk=Disk(20, 10**12, 100)))
        until(lambda: state(home) == "running")


def test_what_waits_for_a_person_is_said(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisors, "observe", lambda _: Observation(inbox=2))
    with running(watching(home, LIVES)):
        until(lambda: state(home) == "waiting" and "fedimb node inbox" in read_status(home).reason)
        assert judge(read_status(home), DAY)[0] == 1


def test_a_silent_coordinator_is_explained(home: NodeHome) -> None:
    with running(watching(home, "exec sleep 60", ask="no connection: firewall")):
        until(lambda: "firewall" in (read_status(home).reason if state(home) else ""))
        assert read_status(home).connected is None
        assert judge(read_status(home), DAY)[0] == 1


def test_two_supervisors_of_one_node_are_refused(home: NodeHome) -> None:
    with running(watching(home, LIVES)):
        until(lambda: state(home) == "running")
        with pytest.raises(ConfigError, match="already has a running supervisor"):
            watching(home, LIVES).run()


def test_once_tells_how_it_ended(home: NodeHome) -> None:
    assert watching(home, "exit 0").run(once=True) == 0
    assert watching(home, "exit 3").run(once=True) == 1
    assert "code 3" in read_status(home).reason


def test_a_refused_setting_ends_the_supervisor_and_is_kept(home: NodeHome) -> None:
    def refuses(_: NodeHome) -> tuple[list[str], dict[str, str]]:
        raise ConfigError("there is no key")

    with pytest.raises(ConfigError, match="no key"):
        Supervisor(home, SHORT, command=refuses, ask=lambda _: (None, []), clock=lambda: DAY).run()
    assert read_status(home).reason == "there is no key"


def test_the_command_ends_where_a_person_must_act(home: NodeHome, capsys: pytest.CaptureFixture[str]) -> None:
    home.file("node.yaml").write_text("site: st-anna\n")
    assert main(["node", "run", "--home", str(home.root)]) == 2  # systemd need not try again
    said = capsys.readouterr().err
    assert "names no coordinator" in said
    assert "nothing is registered" in said  # looked at before, and no reason not to start
    assert "nothing is registered" in " ".join(read_status(home).warnings)
    assert read_status(home).state == "failed"


def test_a_killed_supervisor_leaves_nothing_behind_for_the_next(home: NodeHome, tmp_path: Path) -> None:
    """SIGKILL of a real supervisor: its child lives on, the next one ends it and starts its own."""
    script = f"""
import os
from fedimb.deploy.site import supervisor
from fedimb.deploy.home import NodeHome
from fedimb.deploy.site.node_process import Timings
from fedimb.deploy.site.observe import Observation
supervisor.observe = lambda _: Observation()
timings = Timings(check_s=0.01, write_s=0.02)
command = lambda _: (["sh", "-c", {LIVES!r}], dict(os.environ))
supervisor.Supervisor(NodeHome.open(), timings, command, lambda _: (None, []), lambda: {DAY}).run()
"""
    env = os.environ | {NODE_HOME: str(home.root)}
    first = subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.DEVNULL)
    until(lambda: state(home) == "running", 20)
    orphan = read_status(home).node
    assert orphan is not None
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert start_time(orphan) is not None
    assert judge(read_status(home), DAY)[0] == 2  # whatever the file says, nobody watches
    supervisor = watching(home, LIVES)
    with running(supervisor):
        until(lambda: state(home) == "running" and read_status(home).node != orphan)
        assert start_time(orphan) is None
        assert read_status(home).restarts == 0


def test_a_process_that_died_unseen_is_waited_for(home: NodeHome) -> None:
    """Both were killed: the coordinator still believes the node to be there."""
    home.folder("flwr")
    home.file(*RECORD).write_text(json.dumps({"999999999": "1"}))
    supervisor = watching(home, LIVES)
    supervisor._status.time = format_iso(DAY)
    supervisors.statuses.write(home, supervisor._status)
    with running(supervisor):
        until(lambda: state(home) == "failed")
        assert "was killed" in read_status(home).reason
        until(lambda: state(home) == "running")


def test_somebody_elses_process_of_the_same_id_is_left_alone(home: NodeHome) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        home.folder("flwr")
        home.file(*RECORD).write_text(json.dumps({str(other.pid): "1"}))  # started at another time
        with running(watching(home, LIVES)):
            until(lambda: state(home) == "running")
        assert record([other.pid])
    finally:
        other.kill()
        other.wait()
