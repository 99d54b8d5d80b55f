"""``fedimb ui``: the server it starts, its stop with Ctrl-C, and what it says when there is nothing to show."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fedimb.cli import main, ui
from fedimb.rundir.folder import RunFolder
from fedimb.tracking.state import State, save

# Stands in for MLflow: writes down how it was called, starts a child as the real server does, and listens.
FAKE = """
import json, os, socket, subprocess, sys, time

child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
facts = {"argv": sys.argv[1:], "telemetry": os.environ["MLFLOW_DISABLE_TELEMETRY"], "pids": [os.getpid(), child.pid]}
with open("called.tmp", "w") as file:
    json.dump(facts, file)
os.rename("called.tmp", "called.json")
if "--port" in sys.argv and os.environ.get("FAKE") == "fails":
    child.kill()
    sys.exit(3)
server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
while True:
    server.accept()[0].close()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def alive(pid):
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(home, *words, **env):
    code = "import sys; from fedimb.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, "ui", *words],
        cwd=home,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Started in the background of a shell, the tests ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stop(process):
    """End the command, and with it what it started, whatever a failed test left; returns its output."""
    process.terminate()
    return process.communicate(timeout=60)


def wait_for(what, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def fake(home):
    """A folder with a store, and a package ``mlflow`` to put on the path."""
    package = home / "packages" / "mlflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(FAKE)
    (home / "runs").mkdir()
    (home / "runs" / "mlflow.db").touch()
    return home


@pytest.fixture
def installed(tmp_path_factory):
    """A folder for the path that says what an installation of this release does: where MLflow finds the pages."""
    about = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["entry-points"]
    found = tmp_path_factory.mktemp("installed") / "fedimb_pages-0.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: fedimb-pages\nVersion: 0\n")
    points = "\n".join(f"{name} = {where}" for name, where in about["mlflow.app"].items())
    (found / "entry_points.txt").write_text(f"[mlflow.app]\n{points}\n")
    return found.parent


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(ui, "entry_points", lambda group: [])
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    words = ui.command(uri, 5050, tmp_path / "mlflow.db")
    assert words[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options == {
        "--backend-store-uri": uri,
        "--artifacts-destination": (tmp_path / "mlartifacts").as_uri(),
        "--host": "127.0.0.1",
        "--port": "5050",
        "--workers": "1",
    }
    assert "--artifacts-destination" not in ui.command("postgresql://host/db", 5050, None)


def test_pages_are_served_without_the_assistant_where_mlflow_can_find_how(installed, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    words = ui.command("postgresql://host/db", 5050, None)
    assert words[words.index("--app-name") + 1] == "fedimb"
    monkeypatch.setattr(ui, "entry_points", lambda group: [])
    assert "--app-name" not in ui.command("postgresql://host/db", 5050, None)


def test_an_installation_that_cannot_keep_the_assistant_out_says_so(home, capsys, monkeypatch):
    (home / "runs").mkdir()
    (home / "runs" / "mlflow.db").touch()
    monkeypatch.setattr(ui, "entry_points", lambda group: [])
    monkeypatch.setattr(ui, "_serve", lambda words, uri, args: 0)
    assert main(["ui", "--port", str(free_port())]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "can run commands on this machine" in line
    assert "install fedimb again" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_interrupted_and_leaves_nothing_behind(fake, number):
    port = free_port()
    process = start(fake, "--port", str(port), PYTHONPATH=str(fake / "packages"))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"MLflow: http://127.0.0.1:{port}/\n"
        assert process.stdout.readline() == "stop with Ctrl-C\n"
        process.send_signal(number)
        assert process.wait(60) == 0
    finally:
        stop(process)
    called = json.loads((fake / "called.json").read_text())
    assert called["argv"] == ui.command(f"sqlite:///{fake}/runs/mlflow.db", port, fake / "runs" / "mlflow.db")[3:]
    assert called["telemetry"] == "true"
    assert len(called["pids"]) == 2
    wait_for(lambda: not any(map(alive, called["pids"])), 10)


def test_a_server_that_does_not_start_is_an_error(fake):
    process = start(fake, "--port", str(free_port()), PYTHONPATH=str(fake / "packages"), FAKE="fails")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "did not start (exit code 3)" in err
    assert "http" not in out


def test_what_is_wrong_is_said_before_anything_starts(home, capsys, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("started a process"))
    assert main(["ui"]) == 1
    assert f"no MLflow store at {home}/runs/mlflow.db yet" in capsys.readouterr().err
    assert main(["ui", "--uri", "folder"]) == 2
    assert "not an address" in capsys.readouterr().err
    (home / "runs").mkdir()
    (home / "runs" / "mlflow.db").touch()
    assert main(["ui", "--port", "70000"]) == 2
    assert "from 1 to 65535" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["ui", "--port", str(port)]) == 1
    assert f"port {port} cannot be used" in capsys.readouterr().err
    monkeypatch.setattr(ui, "find_spec", lambda name: None)
    assert main(["ui"]) == 1
    assert "pip install 'fedimb[sim]'" in capsys.readouterr().err


def test_experiments_are_those_of_this_store_the_newest_first(copy):
    uri = "sqlite:////x/mlflow.db"
    for age, (name, study, where) in enumerate(
        [("a-s0-1", "new", uri), ("b-s0-2", "old", uri), ("c-s0-3", "new", uri), ("d-s0-4", "else", "http://host")]
    ):
        path = copy(name, study)
        save(path, State(uri=where, experiment=study))
        os.utime(path / "tracking.json", (1e9 - age, 1e9 - age))
    (copy("untracked-s0-5") / "tracking.json").unlink(missing_ok=True)
    assert ui.experiments("runs", uri) == ["new", "old"]


@pytest.mark.slow
def test_the_real_server_answers_without_its_assistant_and_ends(copy, template, home, installed):
    store = home / "runs" / "mlflow.db"
    path = copy()
    shutil.copyfile(template, store)
    save(RunFolder.open(path).path, State(uri=f"sqlite:///{store}", experiment="template"))
    port = free_port()
    path_to = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = start(home, "--port", str(port), PYTHONPATH=path_to)
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "http://" in line)
        assert line.startswith(f"template: http://127.0.0.1:{port}/#/experiments/1/runs?")
        assert "viewStateShareKey=fedimb" in line
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            assert answer.read() == b"OK"
        for inner in ("config", "providers"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ajax-api/3.0/mlflow/assistant/{inner}", timeout=60)
        search = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/experiments/search?max_results=5"
        with urllib.request.urlopen(search, timeout=60) as answer:
            assert "template" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        stop(process)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    assert sorted(p.name for p in home.iterdir()) == ["runs"]
