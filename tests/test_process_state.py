"""A run gives back the process it ran in, and importing fedimb changes nothing in it."""

import contextlib
import faulthandler
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import fedimb
from fedimb import process_env
from fedimb.errors import ConfigError, RunDiverged
from fedimb.process_state import handlers, log_level, restored, stopping

SMALL = "data.n_max=60 clients.count=3 rounds=2 local.epochs=1 evaluation.bootstrap=0 engine=inline"


def state() -> dict[str, object]:
    """What a process has one of and a run might change."""
    loggers = logging.root.manager.loggerDict.items()
    return {
        "environment": dict(os.environ),
        "levels": {name: one.level for name, one in loggers if isinstance(one, logging.Logger)},
        "root": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "signals": {one: signal.getsignal(one) for one in signal.valid_signals()},
        "handled": (sys.excepthook, faulthandler.is_enabled(), warnings.showwarning),
        "warnings": list(warnings.filters),
        "random": random.getstate(),
        "numpy": repr(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "modes": (torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), str(np.geterr())),
        "path": list(sys.path),
        "folder": os.getcwd(),
        "backend": sys.modules["matplotlib"].get_backend() if "matplotlib" in sys.modules else None,
    }


def changed(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Names of what differs, with what is new since by names a library gave itself left out."""
    levels = {name: level for name, level in after["levels"].items() if name in before["levels"]}
    return [name for name, value in before.items() if (levels if name == "levels" else after[name]) != value]


@pytest.fixture
def own(monkeypatch):
    """A process of a user: two threads, Flower as talkative as it comes, none of fedimb's variables set."""
    for name in {*process_env.QUIET, *process_env.MLFLOW, *process_env.RAY, process_env.MLFLOW_TIMEOUT}:
        monkeypatch.delenv(name, raising=False)
    threads, level = torch.get_num_threads(), logging.getLogger("flwr").level
    torch.set_num_threads(2)
    logging.getLogger("flwr").setLevel(logging.DEBUG)
    yield
    torch.set_num_threads(threads)
    logging.getLogger("flwr").setLevel(level)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run before, so that every library has been imported: what they do to the process then is their affair."""
    folder = tmp_path_factory.mktemp("first")
    result = fedimb.run(f"{SMALL} output_dir={folder} tracking=none")
    import matplotlib

    matplotlib.get_backend()
    return result


def test_a_run_gives_back_the_process(first, own, tmp_path, template):
    shutil.copy(template, tmp_path / "mlflow.db")
    before = state()
    fedimb.run(f"{SMALL} output_dir={tmp_path}")  # MLflow sets some variables too
    assert changed(before, state()) == []


def test_a_resumed_run_gives_back_the_process(first, own):
    before = state()
    fedimb.resume(first.folder)
    assert changed(before, state()) == []


@pytest.mark.parametrize(
    ("words", "error"), [("loss=nonsense", ConfigError), ("local.lr=1e30 local.momentum=0", RunDiverged)]
)
def test_a_run_that_raises_gives_back_the_process(first, own, tmp_path, words, error):
    before = state()
    with pytest.raises(error):
        fedimb.run(f"{SMALL} tracking=none output_dir={tmp_path} {words}")
    assert changed(before, state()) == []


def test_a_comparison_gives_back_the_process(first, own, tmp_path):
    study = tmp_path / "study.yaml"
    words = [*SMALL.split(), "tracking=none", f"output_dir={tmp_path}"]
    rows = {"ce": ["loss=ce"], "focal": ["loss=focal"]}
    study.write_text(json.dumps({"name": "small", "base": words, "references": [], "rows": rows, "seeds": 1}))
    before = state()
    done = fedimb.compare(study, workers=0)
    assert done.failures == []
    assert {result.label for result in done.results.results} >= {"ce", "focal"}
    assert changed(before, state()) == []


def test_the_command_line_starts_runs_in_the_same_way(first, own, tmp_path):
    from small_runs import config

    from fedimb.serverapp.launch import launch
    from fedimb.serverapp.progress import ProgressBar

    before = state()
    launch(config(f"output_dir={tmp_path}", "engine=inline", "rounds=1"), None, ProgressBar(1, enabled=False))
    assert changed(before, state()) == []


def test_everything_is_given_back_after_an_error(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(tmp_path)])
    before = state()
    with contextlib.suppress(ZeroDivisionError), restored(), handlers(), log_level("flwr", logging.ERROR):
        assert os.environ["FLWR_TELEMETRY_ENABLED"] == os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert os.environ["RAY_ADDRESS"] == "local"
        process_env.set_defaults(process_env.MLFLOW)
        process_env.set_mlflow_timeout(5)
        os.environ["PYTHONBREAKPOINT"] = "ray.util.rpdb._driver_set_trace"
        torch.set_num_threads(1)
        random.random(), np.random.rand(), torch.rand(1)
        sys.path.append(str(tmp_path))
        sys.excepthook = print
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert len(changed(before, state())) >= 8
        raise ZeroDivisionError
    assert changed(before, state()) == []


def test_a_user_keeps_what_they_set(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "33")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with process_env.defaults():
        process_env.set_mlflow_timeout(5)
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "33"
        assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert os.environ["HF_HUB_OFFLINE"] == "0"


def test_a_package_of_hugging_faces_fetches_nothing(own, monkeypatch):
    monkeypatch.delitem(sys.modules, "huggingface_hub.constants", raising=False)
    module = process_env.import_offline("huggingface_hub.constants")
    assert module.HF_HUB_OFFLINE
    assert "HF_HUB_OFFLINE" not in os.environ


IMPORTS = """
import contextlib, faulthandler, importlib, json, logging, os, pkgutil, signal, sys, threading, warnings

def state():
    import torch
    loggers = logging.root.manager.loggerDict.items()
    return {
        "environment": dict(os.environ),
        "levels": {name: one.level for name, one in loggers if isinstance(one, logging.Logger) and one.level},
        "root": [logging.root.level, len(logging.root.handlers), logging.root.manager.disable],
        "threads": torch.get_num_threads(),
        "signals": {int(one): str(signal.getsignal(one)) for one in signal.valid_signals()},
        "handled": [str(sys.excepthook), faulthandler.is_enabled()],
        "running": [one.name for one in threading.enumerate()],
        "warnings": sorted(map(str, warnings.filters)),
        "path": sys.path,
    }

for name in json.loads(sys.argv[1]):
    with contextlib.suppress(Exception):  # some exist only while their library makes them
        importlib.import_module(name)
if len(sys.argv) > 2:
    import fedimb
    for found in pkgutil.walk_packages(fedimb.__path__, "fedimb.", onerror=lambda name: None):
        if found.name.endswith("__main__") or "noop_method" in found.name:
            continue
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if error.name.startswith("fedimb"):
                raise
modules = sorted(name for name in sys.modules if not name.startswith(("fedimb", "__")))
print(json.dumps({"state": state(), "modules": modules}))
"""


def imported(*words: str) -> dict[str, object]:
    """The state of a fresh process after imports; it has the variables of this one, without fedimb's."""
    known = {*process_env.QUIET, *process_env.MLFLOW, *process_env.RAY}
    env = {name: value for name, value in os.environ.items() if name not in known}
    done = subprocess.run([sys.executable, "-c", IMPORTS, *words], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_importing_every_module_changes_nothing_but_what_its_libraries_change():
    ours = imported("[]", "all")
    plain = imported(json.dumps(ours["modules"]))
    assert ours["state"] == plain["state"]


def test_the_bare_import_is_light_and_leaves_everything_alone():
    code = "import os, sys; a = dict(os.environ); import fedimb; assert a == dict(os.environ); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert not {"torch", "numpy", "flwr", "ray", "mlflow"} & set(done.stdout.split())


@pytest.mark.parametrize("name", ["fedimb.strategies", "fedimb.clients"])
def test_a_plain_flower_users_environment_is_their_own(name):
    code = f"import os, flwr.clientapp, flwr.serverapp; a = dict(os.environ); import {name}; assert a == os.environ"
    env = {key: value for key, value in os.environ.items() if key not in process_env.QUIET}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_ray_gives_back_what_it_took_and_its_processes_are_quiet(own):
    pytest.importorskip("ray")  # imported here: what that changes stays
    from fedimb.engine.ray import RayEngine

    before = state()
    with RayEngine(workers=1) as engine:
        engine.connect()
        assert signal.getsignal(signal.SIGTERM) is not before["signals"][signal.SIGTERM]
        assert os.environ == before["environment"]
        places = [Path(f"/proc/{pid}/environ") for pid in engine.processes()]
        texts = [place.read_bytes() for place in places if place.exists()]
        # A process that writes its title over its environment leaves a run of zeros there.
        told = [text for text in texts if b"PATH=" in text and b"\0\0" not in text.rstrip(b"\0")]
        assert told
        assert all(b"RAY_USAGE_STATS_ENABLED=0" in text for text in told)
    assert set(changed(before, state())) <= {"warnings", "random"}  # a run gives random numbers back


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_event_inside_the_block_only(number):
    before, stop = signal.getsignal(number), threading.Event()
    with stopping(stop):
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
    assert signal.getsignal(number) is before


def test_in_another_thread_signals_stay_as_they_are():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stopping(threading.Event()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
