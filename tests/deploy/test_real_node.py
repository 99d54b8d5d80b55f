"""Real servers, a real node: foreign code gets nothing, the installed app runs, and what Flower does after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from real_node import (
    QUICK,
    connected,
    foreign_app,
    joined_node,
    make_deployment,
    shadow,
    submitted,
    wait_for,
    watched,
)

from fedimb.deploy import bundle_hash
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.servers import Servers
from fedimb.deploy.site.guard import FOREIGN_CODE, LAST_MESSAGE
from fedimb.deploy.site.node_process import Timings
from fedimb.deploy.site.status import read_status
from fedimb.engine.processes import descendants, start_time

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed"),
]
BUNDLE = bundle_hash.BUNDLE.parent
FORGETS_S = 60.0
"""How long the coordinator's Flower keeps a node in mind that it hears nothing of."""


class Up(NamedTuple):
    """A coordinator whose servers run."""

    deployment: Deployment
    said: Path


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("kliniken süd")
    variables = shadow(folder / "shadow")
    deployment = make_deployment(folder / "heart")
    with Servers(deployment, variables):
        yield Up(deployment, Path(variables["FEDIMB_TEST_SAID"]))


def test_foreign_code_gets_nothing_and_ours_runs(up: Up, tmp_path: Path) -> None:
    home = joined_node(up.deployment, tmp_path / "st-anna")
    proof = tmp_path / "proof"
    hostname = Path("/etc/hostname").read_text().strip()
    with watched(home):
        wait_for(home, connected, 60)
        (foreign,) = submitted(up.deployment, foreign_app(tmp_path / "evil", proof), up.said)
        assert foreign["code"] == FOREIGN_CODE
        assert "st-anna does not run code from the network" in str(foreign["text"])
        assert hostname not in str(foreign["text"])
        assert not proof.exists()  # never imported
        assert not home.file("flwr", "apps").exists()  # never unpacked
        audit = home.file("audit.jsonl")
        (line,) = [json.loads(text) for text in audit.read_text().splitlines()]
        assert line["kind"] == "refused"
        assert "evil/client.py" in line["facts"]["reason"]
        assert AuditLog(audit).verify() is None

        (own,) = submitted(up.deployment, BUNDLE, up.said)
        assert own["code"] != FOREIGN_CODE
        noted = json.loads(home.file(*LAST_MESSAGE).read_text())
        assert noted["type"] == "query.join"  # the installed app was asked
        assert not home.file("flwr", "apps").exists()
        assert [json.loads(text)["kind"] for text in audit.read_text().splitlines()].count("refused") == 1
        status = wait_for(home, lambda found: found.message is not None, 10)
        processes = descendants(status.node or 0)
        assert status.node is not None
    assert start_time(status.node) is None
    assert [pid for pid in processes if start_time(pid)] == []


def test_a_killed_node_comes_back_after_65_seconds_and_not_before(up: Up, tmp_path: Path) -> None:
    """Too early, Flower exits with 305 and says no more; after the supervisor's own wait it is let in at once."""
    home = joined_node(up.deployment, tmp_path / "kremsmuenster")
    early = Timings(restart_s=2.0, check_s=0.1, write_s=0.5)
    with watched(home, early) as supervisor:
        pid = wait_for(home, connected, 60).node
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_for(home, lambda found: "305" in found.reason, 40)
        assert (time.monotonic() - killed) / FORGETS_S < 1  # still within the time Flower keeps a node in mind
        supervisor.stop()
    assert "takes up to 60 seconds" in home.file("status.json").read_text() or supervisor._failures >= 2
    time.sleep(max(0.0, FORGETS_S + 10 - (time.monotonic() - killed)))  # let the coordinator forget it

    log = home.file("logs", "supernode.log")
    with watched(home):
        pid = wait_for(home, connected, 90).node
        assert pid is not None
        before = log.stat().st_size
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_for(home, lambda found: found.state == "failed", 10)
        wait_for(home, connected, 120)
        took = time.monotonic() - killed
    assert 1 <= took / Timings().restart_s < 1.4
    assert "Exit Code" not in log.read_text()[before:]


def test_a_killed_supervisor_is_taken_over(up: Up, tmp_path: Path) -> None:
    """`fedimb node run` as systemd starts it: SIGKILL, started again, its orphan ended politely and so no wait."""
    home = joined_node(up.deployment, tmp_path / "st-polten")
    command = [str(Path(sys.executable).with_name("fedimb")), "node", "run", "--home", str(home.root)]

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)

    first = started()
    try:
        orphan = wait_for(home, connected, 60).node
        first.kill()
        first.wait()
        assert orphan is not None
        assert start_time(orphan) is not None
        second = started()
        try:
            status = wait_for(home, lambda found: connected(found) and found.node != orphan, 45)
            assert status.node is not None
            assert start_time(orphan) is None
            assert "Exit Code" not in home.file("logs", "supernode.log").read_text()
            assert subprocess.run([*command[:2], "status", *command[3:]], stdout=subprocess.DEVNULL).returncode < 2
            second.terminate()
            assert second.wait(40) == 0
            assert start_time(status.node) is None
            assert read_status(home).state == "stopped"
        finally:
            second.kill()
            second.wait()
    finally:
        first.kill()
        first.wait()


def test_an_unknown_key_is_told_as_one(up: Up, tmp_path: Path) -> None:
    home = joined_node(up.deployment, tmp_path / "unbekannt", known=False)
    with watched(home, Timings(restart_s=1.0, check_s=0.1, write_s=0.5)):
        found = wait_for(home, lambda found: "not registered" in found.reason, 60)
    assert found.state == "failed"


def test_another_coordinators_certificate_is_told_as_one(up: Up, tmp_path: Path) -> None:
    """Flower tries for ever and says nothing."""
    other = make_deployment(tmp_path / "other")
    home = joined_node(other, tmp_path / "fremd", known=False)
    settings = home.file("node.yaml")
    settings.write_text(settings.read_text().replace(str(other.config.port), str(up.deployment.config.port)))
    with watched(home, QUICK):
        found = wait_for(home, lambda found: "its certificate is not trusted" in found.reason, 60)
    assert found.state == "waiting"
    assert found.connected is None
