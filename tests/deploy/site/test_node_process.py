"""One SuperNode process: its log read as it grows, its end explained, and ended itself with all below it."""

import signal
import subprocess
from pathlib import Path

from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE

from fedimb.deploy.coordinator.gate import UNKNOWN
from fedimb.deploy.site.node_process import ProcessLog, Timings, explain_exit, terminate_process
from fedimb.engine.processes import start_time


def test_the_wait_is_longer_than_flower_needs_to_notice_a_death() -> None:
    assert Timings().restart_s == 65
    assert Timings().restart_s > HEARTBEAT_DEFAULT_INTERVAL * HEARTBEAT_PATIENCE


def test_one_that_does_not_listen_is_killed_with_all_below_it() -> None:
    stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 60 & echo $!; while :; do sleep 1; done"],
                                stdout=subprocess.PIPE)  # fmt: skip
    assert stubborn.stdout is not None
    below = int(stubborn.stdout.readline())
    assert terminate_process(stubborn.pid, 0.2) is False
    stubborn.wait()
    assert stubborn.returncode == -signal.SIGKILL
    assert start_time(below) is None


def test_a_log_is_read_as_it_grows(tmp_path: Path) -> None:
    log, said = tmp_path / "log", ProcessLog()
    log.write_text("before\nINFO : SuperNode ")
    said.read(log, 1.0)
    assert said.connected is None
    with log.open("a") as more:
        more.write("ID: 42\nERROR : Exit Code: 302\n\nUnable to parse the private key file.\n")
    said.read(log, 2.0)
    assert (said.connected, said.exit_code) == (2.0, 302)
    assert "Flower's code 302" in explain_exit(1, said, 1, log)
    assert "Unable to parse" in explain_exit(1, said, 1, log)
    assert "memory" in explain_exit(-9, said, 1, log)
    said.read(tmp_path / "none", 3.0)  # nothing there: nothing new


def test_what_the_coordinators_gate_says_is_the_reason(tmp_path: Path) -> None:
    """The text is what Flower's node writes when nginx answers 412 as nginx.conf says."""
    log, said = tmp_path / "log", ProcessLog()
    text = "Failed to initialize the connection to the SuperLink.\n[code: 2004] Failed to activate SuperNode.\n"
    log.write_text(f"ERROR : Exit Code: 305\n{text}gate: this node's clock is 40 s ahead of the coordinator's\n")
    said.read(log, 1.0)
    why = explain_exit(1, said, 1, log)
    assert "clock is 40 s ahead" in why
    assert "timedatectl" in why
    unknown = ProcessLog()
    log.write_text(f"ERROR : Exit Code: 305\n{text}gate: {UNKNOWN}\n")
    unknown.read(log, 1.0)
    assert "this site's key is not registered there" in explain_exit(1, unknown, 1, log)  # at once: no doubt is left
