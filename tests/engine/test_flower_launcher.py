"""The launcher beside a Flower of three small scripts: what it sets, what it says, and that nothing stays behind."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
from small_runs import alive

from fedimb.engine import flower
from fedimb.engine.flower import FlowerLauncher
from fedimb.engine.grid import Job
from fedimb.engine.processes import descendants, end, marked, record, start_time
from fedimb.errors import RunFailed
from fedimb.rundir.folder import RunFolder

SUPERLINK = f"""#!{sys.executable}
import http.server, subprocess, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *words):
        pass
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
subprocess.Popen(["sleep", "300"])  # a helper whose command line does not say whose it is
http.server.HTTPServer((words["--host"], int(words["--port"])), Health).serve_forever()
"""
FLWR = """#!/bin/sh
env > "$FEDIMB_FLOWER_DIR/$1.env"; pwd >> "$FEDIMB_FLOWER_DIR/$1.env"
case $1 in
  run) echo 'Some words first'; cp "$5" "$FEDIMB_FLOWER_DIR/run.toml"; __RUN__ ;;
  list) __LIST__ ;;
esac
"""
STARTED = """echo '{"success": true, "run-id": "77"}'"""
COMPLETED = """echo '{"success": true, "runs": [{"run-id": "77", "status": "finished:completed"}]}'"""


class NoRay:
    """In place of Ray: an address nobody is asked at, and a folder."""

    def __init__(self, folder: Path) -> None:
        self.temp_dir = str(folder)

    def connect(self) -> str:
        return "127.0.0.1:1"

    def close(self) -> None:
        pass


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """Makes a launcher beside whose Python the scripts stand."""
    made = []

    def make(run=STARTED, listed=COMPLETED, superlink=SUPERLINK):
        bin_dir, temp = tmp_path / "bin", tmp_path / "fedimb-temp"
        for folder in (bin_dir, temp):
            folder.mkdir()
        scripts = {"flower-superlink": superlink, "flwr": FLWR.replace("__RUN__", run).replace("__LIST__", listed)}
        for name, text in scripts.items():
            (bin_dir / name).write_text(text)
            (bin_dir / name).chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(bin_dir / "python"))
        made.append(FlowerLauncher())
        made[0]._ray = NoRay(temp)
        return made[0]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "it's a run" / "größe"
    folder.mkdir(parents=True)
    RunFolder(folder).set_status("failed", "an earlier attempt")
    return Job(str(folder), "{}", 3)


def ends(folder: str, status: str, rounds: int) -> str:
    """Shell words of a ServerApp that runs rounds and says how it ended."""
    lines = "".join(json.dumps({"row": 0, "step": step, "metrics": {}}) + "\\n" for step in range(1, rounds + 1))
    ended = json.dumps({"status": status, "reason": "why"})
    quoted = folder.replace("'", "'\\''")
    return f"{STARTED}; printf '{lines}' > '{quoted}/metrics.jsonl'; echo '{ended}' > '{quoted}/status.json'"


def test_a_run_is_submitted_followed_and_left_as_its_folder_says(launcher, job, monkeypatch):
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    one, advanced = launcher(run=ends(job.run_dir, "waiting", 2)), []
    one.run_elsewhere(job, advanced.append)
    assert sum(advanced) == 2
    assert RunFolder(Path(job.run_dir)).status() == "waiting"
    temp = Path(one.temp_dir)
    lines = (temp / "run.env").read_text().splitlines()
    assert lines[-1] == str(temp / "flower" / "neutral")
    assert list((temp / "flower" / "neutral").iterdir()) == []
    env = dict(line.split("=", 1) for line in lines if "=" in line)
    assert env["FLWR_HOME"] == str(temp / "flower" / "flwr")
    assert env["RAY_ADDRESS"] == "127.0.0.1:1"
    for switch in ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED"):
        assert env[switch] == "0"
    for switch in ("FLWR_DISABLE_UPDATE_CHECK", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "OMP_NUM_THREADS"):
        assert env[switch] == "1"
    import tomllib

    assert tomllib.loads((temp / "run.toml").read_text()) == {"run-dir": job.run_dir}
    link = tomllib.loads((temp / "flower" / "flwr" / "config.toml").read_text())["superlink"]
    assert link["fedimb"]["address"].startswith("127.0.0.1:")


def test_everything_it_started_is_ended_also_what_carries_no_mark(launcher):
    one = launcher()
    one.start()
    mine = marked(one.temp_dir)
    assert len(mine) == 2
    assert one.processes() == mine
    one.start()
    assert marked(one.temp_dir) == mine, "a SuperLink that runs is kept"
    temp = one.temp_dir
    one.close()
    one.close()
    assert [pid for pid in mine if start_time(pid)] == []
    assert not os.path.exists(temp)


def test_a_superlink_that_died_is_replaced(launcher):
    one = launcher()
    one.start()
    first, helpers = one._superlink, record(descendants(one._superlink.pid))
    first.kill()
    first.wait()
    end(helpers)
    one.start()
    assert one._superlink.pid != first.pid
    assert alive(one._superlink.pid)


def test_a_superlink_that_does_not_start_shows_the_end_of_its_log(launcher):
    one = launcher(superlink="#!/bin/sh\necho 'no such option: --simulation' >&2; exit 3\n")
    with pytest.raises(RunFailed, match=r"SuperLink did not start; the end of its log: no such option: --simulation"):
        one.start()


@pytest.mark.parametrize(
    "answer",
    [
        """echo '{"success": false, "error-message": "Invalid run configuration."}'""",
        "echo 'Invalid run configuration.' >&2; exit 1",
    ],
)
def test_what_flwr_refuses_is_said(answer, launcher, job):
    with pytest.raises(RunFailed, match=r"flwr run failed: [\s\S]*Invalid run configuration\."):
        launcher(run=answer).run_elsewhere(job, lambda n: None)


def test_a_server_app_that_dies_without_a_word_is_noticed(launcher, job, monkeypatch):
    monkeypatch.setattr(flower, "_ASK_FLOWER_EVERY_S", 0.0)
    failed = """echo '{"success": true, "runs": [{"status": "finished:failed", "status-details": "out of memory"}]}'"""
    with pytest.raises(RunFailed, match=r"ended the run, not fedimb: .*out of memory"):
        launcher(listed=failed).run_elsewhere(job, lambda n: None)


def test_an_ended_run_is_waited_for_until_flower_has_let_go(launcher, job, tmp_path):
    once = tmp_path / "asked"
    still = f"""if mkdir '{once}'; then echo '{{"runs": [{{"status": "running"}}]}}'; else {COMPLETED}; fi"""
    begun = time.monotonic()
    launcher(run=ends(job.run_dir, "finished", 1), listed=still).run_elsewhere(job, lambda n: None)
    assert once.exists()
    assert time.monotonic() - begun >= 1.0, "asked twice"
