"""Flower's own client process with the guard in it: what is refused, before what, and what the coordinator reads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.supercore.fab import Fab
from flwr.supernode.runtime import run_clientapp as flower

from fedimb.contracts.platform import STEP
from fedimb.deploy.audit_log import AuditLog
from fedimb.deploy.bundle_hash import PROJECT, own_project
from fedimb.deploy.home import NODE_HOME, NodeHome
from fedimb.deploy.site import guard as guards
from fedimb.engine.flower_private import ensure_identity, number

OWN = build_fab_from_files({PROJECT: own_project()})[0]
EVIL_PROJECT = own_project().replace(b"fedimb.deploy.site.app:app", b"evil.app:app")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeHome:
    (tmp_path / "node.yaml").write_text("site: st-anna\n")
    monkeypatch.setenv(NODE_HOME, str(tmp_path))
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    return NodeHome.open()


class Ended(Exception):
    """Flower's process would end here."""


def ran(
    home: NodeHome, monkeypatch: pytest.MonkeyPatch, bundle: bytes, app: Any, task: str = guards.CLIENT_APP
) -> tuple[Message, list[str]]:
    """Flower's own run_clientapp, its wire replaced: the reply it pushed, and its steps in order."""
    ensure_identity()
    step = ConfigRecord({"round": 7})
    message = Message(RecordDict({STEP: step}), 1, "train")
    number(message, "m1")
    context = Context(5, 1, {}, RecordDict(), {})
    run = SimpleNamespace(run_id=5, fab_id="fedimb/fedimb-deployed", fab_version="0.1.0")
    replies: list[Message] = []
    steps: list[str] = []

    class Heartbeat:
        is_running = False

        def __init__(self, *_: Any) -> None: ...

        def start(self) -> None: ...

    def pulled(_: Any) -> tuple[Any, ...]:
        steps.append("pulled")
        return message, context, run, Fab("0" * 64, bundle, {})

    def ended(**_: Any) -> None:
        raise Ended

    replaced = {
        "RuntimeHttpClient": SimpleNamespace(from_server_address=lambda **_: SimpleNamespace(close=lambda: None)),
        "HeartbeatSender": Heartbeat,
        "make_task_heartbeat_fn_http": lambda _: None,
        "event": lambda *_: None,
        "register_signal_handlers": lambda **_: None,
        "pull_task_input": pulled,
        "push_message": lambda _, reply, __: replies.append(reply),
        "flwr_exit": ended,
    }
    for name, value in replaced.items():
        assert hasattr(flower, name), f"Flower's client process has no {name} any more"
        monkeypatch.setattr(flower, name, value)
    for name in ("install_from_fab", "get_load_client_app_fn", "Error"):  # put back after the test
        monkeypatch.setattr(flower, name, getattr(flower, name))
    monkeypatch.setattr(sys, "argv", ["pytest"])

    def installed() -> Any:
        steps.append("loaded")
        return app

    one = guards.Guard(home, task, app=installed)
    words = ["--runtime-api-address", "127.0.0.1:1", "--token", "t", "--insecure"]
    with pytest.raises(Ended):
        guards.run_guarded(one, [*words, "--allow-runtime-dependency-installation"])
    (reply,) = replies
    return reply, steps


def answers(message: Message, context: Context) -> Message:
    return Message(RecordDict({"x": ConfigRecord({"pid": 1})}), reply_to=message)


def lines(home: NodeHome) -> list[dict[str, Any]]:
    path = home.file("audit.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_installed_app_answers_and_nothing_is_unpacked(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    reply, steps = ran(home, monkeypatch, OWN, answers)
    assert reply.content["x"]["pid"] == 1
    assert steps == ["pulled", "loaded"]
    assert not home.file("flwr", "apps").exists()
    assert lines(home) == []
    noted = json.loads(home.file(*guards.LAST_MESSAGE).read_text())
    assert (noted["type"], noted["round"], noted["outcome"]) == ("train", 7, "answered")


def test_foreign_code_gets_nothing_and_leaves_one_line(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = build_fab_from_files({PROJECT: EVIL_PROJECT, "evil/app.py": b"raise SystemExit", "evil/__init__.py": b""})[0]
    reply, steps = ran(home, monkeypatch, evil, answers)
    assert steps == ["pulled"]  # neither unpacked nor loaded
    assert not home.file("flwr", "apps").exists()
    assert reply.error.code == guards.FOREIGN_CODE
    assert "st-anna does not run code from the network" in reply.error.reason
    assert "evil/" in reply.error.reason
    (line,) = lines(home)
    assert line["kind"] == "refused"
    assert line["facts"]["task"] == "flwr-clientapp"
    assert line["facts"]["bundle_bytes"] == len(evil)
    assert AuditLog(home.file("audit.jsonl")).verify() is None


def test_a_foreign_pyproject_without_code_is_refused_too(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could name any module installed at the site as its app: `antigravity`, or somebody's script."""
    reply, steps = ran(home, monkeypatch, build_fab_from_files({PROJECT: EVIL_PROJECT})[0], answers)
    assert steps == ["pulled"]
    assert reply.error.code == guards.FOREIGN_CODE


@pytest.mark.parametrize("task", guards.REFUSED_TASKS)
def test_every_other_task_is_refused_even_with_the_right_bundle(
    home: NodeHome, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    reply, steps = ran(home, monkeypatch, OWN, answers, task)
    assert steps == ["pulled"]
    assert task in reply.error.reason
    assert [line["facts"]["task"] for line in lines(home)] == [task]


def test_a_full_disk_does_not_open_the_door(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    home.file("audit.jsonl").mkdir()
    reply, steps = ran(home, monkeypatch, b"no bundle", answers)
    assert steps == ["pulled"]
    assert reply.error.code == guards.FOREIGN_CODE


def test_what_an_exception_says_stays_here(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(message: Message, context: Context) -> Message:
        raise ValueError("could not convert string to float: 'Patient Müller 4711081523'")

    reply, _ = ran(home, monkeypatch, OWN, fails)
    assert "4711081523" not in reply.error.reason
    assert "ValueError" not in reply.error.reason
    (kept,) = home.file("logs", "incidents").iterdir()
    assert kept.stem in reply.error.reason
    assert "Müller 4711081523" in kept.read_text()


def test_an_error_reply_is_noted_as_one(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(message: Message, context: Context) -> Message:
        return Message(Error(1303, "st-anna refuses class_counts"), reply_to=message)

    reply, _ = ran(home, monkeypatch, OWN, refuses)
    assert reply.error.code == 1303  # the node's own words go as they are
    assert json.loads(home.file(*guards.LAST_MESSAGE).read_text())["outcome"] == "refused or failed"


def test_a_shim_stands_for_every_program_flower_may_start() -> None:
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

    assert set(TASK_TYPE_TO_COMMAND.values()) == set(guards.PROGRAMS)


def test_the_shims_run_this_python(home: NodeHome) -> None:
    folder = guards.write_shims(home)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*guards.PROGRAMS, guards.SUPEREXEC])
    for name in guards.PROGRAMS:
        assert shutil.which(name, path=str(folder)) == str(folder / name)
    text = (folder / guards.CLIENT_APP).read_text()
    assert sys.executable in text
    assert " -P -m fedimb.deploy.site.guard flwr-clientapp " in text


@pytest.mark.slow
def test_a_shim_takes_flowers_words(home: NodeHome, tmp_path: Path) -> None:
    """As Flower's executor starts it: by name, on PATH."""
    env = os.environ | {"PATH": str(guards.write_shims(home)), NODE_HOME: str(home.root)}
    done = subprocess.run([guards.CLIENT_APP, "--insecure"], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: flwr-clientapp" in done.stderr
    assert "--token" in done.stderr


def test_the_guard_runs_nothing_else() -> None:
    with pytest.raises(SystemExit, match="is not one of them"):
        guards.main(["sh", "-c", "true"])


def test_the_share_of_a_gpu_is_set_before_the_app_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    told: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", told.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    guards.limit_gpu(0.5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    guards.limit_gpu(None)
    assert told == []
    guards.limit_gpu(0.5)
    assert told == [0.5]
