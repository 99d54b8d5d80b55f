"""Ray: the same bits as inline for any number of workers, and nothing lost or left behind when processes die."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import killing
import pytest
from small_runs import SMALL, alive, launch_in, weights_sha

from fedimb.engine.processes import marked
from fedimb.engine.ray import RayEngine
from fedimb.engine.ray_pool import Pool
from fedimb.engine.ray_private import UNUSED, lean_head
from fedimb.errors import ConfigError
from fedimb.rundir.folder import RunFolder

STALE = "192.0.2.77:1"  # as an environment names a cluster that is gone
pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]  # a Ray head fills the machine


@pytest.fixture(scope="module")
def three():
    """One private head and three actors for the module: each takes many seconds to start."""
    with pytest.MonkeyPatch.context() as patch, RayEngine(workers=3) as engine:
        patch.setenv("RAY_ADDRESS", STALE)
        engine.start()
        yield engine


def test_a_private_head_is_private_whatever_the_environment_says(three):
    from ray._private.services import canonicalize_bootstrap_address

    assert os.environ["RAY_ADDRESS"] == STALE
    assert three.temp_dir
    assert str(three.pool._ray.get_runtime_context().gcs_address) != STALE
    assert canonicalize_bootstrap_address("auto") == STALE, "Ray itself would ask there"


def test_more_gpus_than_there_are_are_refused_before_any_actor_waits_for_them(three):
    many = RayEngine(workers=1, gpus_per_worker=1000)
    with pytest.raises(ConfigError, match=r"room for 0 at engine.gpus_per_worker=1000"):
        many.start()
    assert many.pool is None


def test_an_engine_of_another_address_does_not_take_the_ray_that_runs_here(three):
    with pytest.raises(ConfigError, match=r"engine.address=127.0.0.1:1: this process is already in the Ray cluster"):
        RayEngine(address="127.0.0.1:1").start()


def test_ray_still_has_the_names_a_lean_head_replaces():
    from ray._private.node import Node

    before = {name: getattr(Node, name) for name in UNUSED}
    with lean_head():
        assert all(getattr(Node, name) is UNUSED[name] for name in UNUSED)
    assert {name: getattr(Node, name) for name in UNUSED} == before


def test_a_private_head_starts_no_process_that_nobody_uses(three):
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in three.processes() if alive(pid)]
    assert any(b"raylet" in command for command in commands)
    for unused in (b"dashboard/dashboard.py", b"log_monitor.py", b"monitor.py"):
        assert not any(unused in command for command in commands), unused


def some_of(engine, workers):
    """An engine that sees only the first actors of another's."""
    few = RayEngine(workers=workers)
    few.pool = Pool(engine._ray, {})
    few.pool.actors = engine.pool.actors[:workers]
    return few


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("inline")
    return {
        aggregator: weights_sha(launch_in(cwd, "engine=inline", f"aggregator={aggregator}", "clients.count=7"))
        for aggregator in ("fedavg", "fedmedian")
    }


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_bit_equal_to_inline(workers, three, inline, tmp_path):
    for aggregator, expected in inline.items():
        overrides = ("engine=ray", f"aggregator={aggregator}", "clients.count=7")
        assert weights_sha(launch_in(tmp_path, *overrides, engine=some_of(three, workers))) == expected, aggregator


@pytest.mark.parametrize(
    "words",
    [
        ("strategy=scope", "strategy.scope.warmup=1"),
        ("strategy=[coreset,scope]", "strategy.coreset.match=inner", "strategy.scope.warmup=1"),
        ("strategy=fairfal", "strategy.fairfal.cycles=3", "strategy.fairfal.budget=4"),
    ],
)
def test_methods_that_keep_rows_at_clients_are_bit_equal_to_inline(words, three, tmp_path):
    many = ("clients.count=7", "calibration=[none,la_post]", *words)
    here = launch_in(tmp_path / "inline", "engine=inline", *many)
    there = launch_in(tmp_path / "ray", "engine=ray", *many, engine=three)
    assert weights_sha(here) == weights_sha(there)
    assert [row.final for row in here.rows] == [row.final for row in there.rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("strategy.oneround.secure=false",),
        ("strategy.oneround.head=ncm",),
        ("strategy.oneround.use=post", "model=mlp"),
        ("strategy.oneround.shrinkage=0.5", "strategy.oneround.epsilon=50", "strategy.oneround.clip=5"),
    ],
    ids=["masked", "open", "ncm", "post", "noise"],
)
def test_a_head_from_class_statistics_is_bit_equal_to_inline(words, three, tmp_path):
    """Masks, sums, leave-one-out and noise do not depend on which worker a client is at."""
    own = ("clients.count=7", "strategy=oneround", "strategy.oneround.min_count=1", "model=logistic", *words)
    here = launch_in(tmp_path / "inline", "engine=inline", *own)
    there = launch_in(tmp_path / "ray", "engine=ray", *own, engine=three)
    assert weights_sha(here) == weights_sha(there)
    assert [row.final for row in here.rows] == [row.final for row in there.rows]
    artifacts = [(run.folder / "artifacts" / "oneround.json").read_text() for run in (here, there)]
    assert artifacts[0] == artifacts[1]


def test_an_actor_killed_in_a_round_is_replaced_and_its_lane_run_again(three, inline, tmp_path):
    victim = three.worker_pids()[0]
    killer = threading.Timer(0.2, os.kill, (victim, signal.SIGKILL))
    killer.start()
    result = launch_in(tmp_path, "engine=ray", "clients.count=7", engine=three)
    killer.join()
    deadline = time.monotonic() + 30
    while alive(victim) and time.monotonic() < deadline:
        time.sleep(0.1)
    again = launch_in(tmp_path, "engine=ray", "clients.count=7", engine=three)
    assert victim not in three.worker_pids()
    assert weights_sha(result) == weights_sha(again) == inline["fedavg"]


MY_NET = """
from math import prod
from torch import nn
from fedimb.models.base import Classifier

class MyNet(Classifier):
    def __init__(self, n_classes: int, input_shape: tuple[int, ...], width: int):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), width), nn.Tanh())
        self.head = nn.Linear(width, n_classes)

    def features(self, x):
        return self.body(x)
"""


def test_a_model_class_from_a_file_in_the_working_folder_is_that_of_inline(three, tmp_path, monkeypatch):
    (tmp_path / "my_ray_net.py").write_text(MY_NET)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)  # the actors are older: they were started elsewhere
    words = ("clients.count=7", "model={_target_: my_ray_net.MyNet, width: 5}")
    expected = launch_in(tmp_path, "engine=inline", *words)
    result = launch_in(tmp_path, "engine=ray", *words, engine=three)
    assert weights_sha(result) == weights_sha(expected)
    monkeypatch.delitem(sys.modules, "my_ray_net")


def killed_and_resumed(warm, point, count, tmp_path):
    overrides = [*SMALL, "engine=ray", "engine.workers=1", "clients.count=7"]
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        assert killing.run(warm, overrides, tmp_path, point, count) == -9
        (folder,) = (tmp_path / "runs" / "default").iterdir()
        left = json.loads((folder / "processes.json").read_text())
        assert left["temp_dir"]
        assert left["processes"], "what a killed driver may leave behind is recorded"
        assert killing.resume(warm, folder, tmp_path) == 0
        assert RunFolder(folder).status() == "finished"
        assert marked(left["temp_dir"]) == []
        assert not os.path.exists(left["temp_dir"])
        assert alive(bystander.pid)
        return (folder / "artifacts" / "model" / "model.safetensors").read_bytes()
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.slow
def test_a_killed_driver_is_cleaned_up_after_and_resumed(warm, tmp_path, tmp_path_factory):
    expected = launch_in(tmp_path_factory.mktemp("inline"), "engine=inline", "clients.count=7")
    weights = killed_and_resumed(warm, "after_checkpoint", 2, tmp_path)
    assert weights == (expected.folder / "artifacts" / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "count"),
    [("metrics", 1), ("metrics", 2), ("checkpoint", 1), ("checkpoint", 3), ("after_checkpoint", 1), ("result", 1)],
)
def test_six_seeded_kills_of_the_driver(warm, point, count, tmp_path, tmp_path_factory):
    expected = launch_in(tmp_path_factory.mktemp("inline"), "engine=inline", "clients.count=7")
    weights = killed_and_resumed(warm, point, count, tmp_path)
    assert weights == (expected.folder / "artifacts" / "model" / "model.safetensors").read_bytes()


def test_engine_arguments_are_checked():
    from fedimb.engine.open import open_engine

    with pytest.raises(ConfigError, match=r"no engine 'rai'.*'ray'"):
        open_engine({"name": "rai"})
    with pytest.raises(ConfigError, match=r"threads"):
        open_engine({"name": "ray", "threads": 2})
