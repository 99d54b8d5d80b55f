"""Settings and clusters that cannot work are refused before Ray is asked to wait for ever."""

import contextlib
import socket
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.engine import ray as module
from fedimb.engine import ray_checks
from fedimb.engine.open import open_engine
from fedimb.engine.ray import RayEngine
from fedimb.engine.ray_checks import check_gpus, same_cluster, why_died, worker_count, worker_slots
from fedimb.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("workers", 0, "engine.workers=0: give a whole number of at least 1"),
        ("workers", -1, "engine.workers=-1: give a whole number"),
        ("workers", "two", "engine.workers=two: give a whole number"),
        ("workers", True, "engine.workers=True: give"),
        ("workers", 1.5, "engine.workers=1.5: give"),
        ("gpus_per_worker", -1, "engine.gpus_per_worker=-1: give the share"),
        ("gpus_per_worker", float("nan"), "engine.gpus_per_worker=nan: give the share"),
        ("gpus_per_worker", "half", "engine.gpus_per_worker=half: give the share"),
        ("gpus_per_worker", 1.5, "engine.gpus_per_worker=1.5: above 1 give a whole number"),
        ("address", "auto", "engine.address=auto: give host:port"),
        ("address", "local", "engine.address=local: give host:port"),
        ("address", "ray://10.0.0.5:10001", "engine.address=ray://10.0.0.5:10001: give host:port"),
        ("address", ":6379", "engine.address=:6379: give host:port"),
        ("address", "head:66000", "engine.address=head:66000: give host:port"),
        ("address", 6379, "engine.address=6379: give host:port"),
    ],
)
def test_settings_no_machine_could_serve(setting, value, said):
    with pytest.raises(ConfigError) as error:
        open_engine({"name": "ray", setting: value})
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_workers_of_the_flower_engine_are_checked_too():
    with pytest.raises(ConfigError, match=r"engine.workers=0: give"):
        open_engine({"name": "flower", "workers": 0})


def test_a_gpu_where_there_is_none_is_refused_before_ray_starts(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_gpus(0.0)
    with pytest.raises(ConfigError, match=r"engine.gpus_per_worker=0.5: torch finds no GPU"):
        RayEngine(gpus_per_worker=0.5)._connect(None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_gpus(1.0)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=4),
    st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.5, 1.0, 2.0]),
)
@settings(max_examples=25)
def test_workers_fit_machine_by_machine(sizes, share):
    nodes = [{"CPU": float(cpus), "GPU": float(gpus)} for cpus, gpus in sizes]
    count = worker_slots(nodes, share)
    assert count == sum(worker_slots([node], share) for node in nodes) <= sum(cpus for cpus, _ in sizes)
    if not share:
        assert count == sum(cpus for cpus, _ in sizes)
    for node in nodes:
        assert worker_slots([node], share) * share <= node["GPU"] + 1e-6 or not share


def test_examples_of_room():
    assert worker_slots([{"CPU": 8, "GPU": 2}], 0.4) == 4  # two on each GPU, not five on both
    assert worker_slots([{"CPU": 8, "GPU": 1}], 0.1) == 8
    assert worker_slots([{"CPU": 8, "GPU": 3}, {"CPU": 4}], 2) == 1
    assert worker_slots([{"memory": 1.0}], 0) == 0


def test_one_worker_per_cpu_of_the_cluster_and_never_more():
    two = [{"CPU": 2.0}, {"CPU": 1.0}]
    assert worker_count(None, two, 0) == 3
    assert worker_count(2, two, 0) == 2
    with pytest.raises(ConfigError, match=r"engine.workers=4: Ray has 2 machines with 3 CPUs and 0 GPUs, room for 3;"):
        worker_count(4, two, 0)
    with pytest.raises(ConfigError, match=r"engine.workers=null: .* room for 0 at engine.gpus_per_worker=1; .*lower"):
        worker_count(None, two, 1.0)
    with pytest.raises(ConfigError, match=r"1 machine with 0 CPUs"):
        worker_count(None, [{}], 0)


def test_no_cluster_at_the_address():
    with pytest.raises(ConfigError, match=r"engine.address=127.0.0.1:1: no Ray cluster answers there"):
        RayEngine(address="127.0.0.1:1")._connect(None)


@contextlib.contextmanager
def answering(first: bytes):
    """host:port of something that says ``first`` to whoever connects."""

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                kept.append(connection)
                connection.sendall(first)

    kept = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in kept:
        connection.close()


HEAD = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + bytes(6)  # an HTTP/2 server's first frame: its settings


@pytest.mark.parametrize("first", [b"", b"SSH-2.0", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_at_the_address_is_not_asked_for_minutes(first, monkeypatch):
    monkeypatch.setattr(ray_checks, "_PATIENCE_S", 0.2)
    with answering(first) as address, pytest.raises(ConfigError, match=r"no Ray head answers there; .*not that of its"):
        RayEngine(address=address)._connect(None)


def test_behind_tls_only_the_port_is_tried(monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with answering(b"") as address:
        ray_checks.check_address(address)


@pytest.mark.parametrize("environment", ["local", "auto", "127.0.0.1:1", None])
def test_the_address_of_the_configuration_is_the_one_joined(environment, monkeypatch):
    if environment is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    asked = []
    fake = SimpleNamespace(init=lambda **options: asked.append(options), shutdown=lambda: None)
    with answering(HEAD) as address:
        RayEngine(address=address)._connect(fake)
    (options,) = asked
    assert options["address"] == address
    assert not {"num_cpus", "num_gpus", "object_store_memory"} & options.keys(), "Ray refuses these of who joins"


@pytest.mark.parametrize("environment", ["auto", "127.0.0.1:1"])
def test_without_an_address_the_head_is_private(environment, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", environment)
    monkeypatch.setattr(module, "lean_head", contextlib.nullcontext)
    asked = []
    with RayEngine(workers=2) as engine:
        engine._temp = tmp_path / "head"
        engine._connect(SimpleNamespace(init=lambda **options: asked.append(options)))
    assert (asked[0]["address"], asked[0]["num_cpus"]) == ("local", 2)


def test_a_cluster_that_cannot_be_joined_is_one_line():
    def refuse(**options):
        raise RuntimeError("Version mismatch: the cluster was started with\n  Ray: 2.0.0")

    ended = []
    fake = SimpleNamespace(init=refuse, shutdown=lambda: ended.append(1))
    with answering(HEAD) as address, pytest.raises(ConfigError) as error:
        RayEngine(address=address)._connect(fake)
    assert "cannot join the cluster (Version mismatch: the cluster was started with)" in str(error.value)
    assert "\n" not in str(error.value)
    assert ended == [1]


def test_one_cluster_by_two_names():
    assert same_cluster("localhost:6379", "127.0.0.1:6379")
    assert same_cluster(f"{socket.gethostname()}:6379", "127.0.0.1:6379")
    assert not same_cluster("127.0.0.1:6379", "127.0.0.1:6380")
    assert not same_cluster("192.0.2.1:6379", "127.0.0.1:6379")
    assert same_cluster("no-such-name.invalid:1", "no-such-name.invalid:1")


def test_a_death_is_explained_by_memory_and_a_failed_start_by_its_cause():
    said = why_died(MemoryError("Task was killed\nMemory on the node was 7.9GB / 8GB"))
    assert "out of memory: use fewer engine.workers, a smaller local.batch_size" in said
    assert said.endswith("(Ray says: MemoryError: Task was killed)")
    started = RuntimeError("The actor died\n  in its constructor:\nModuleNotFoundError: No module named 'fedimb'\n")
    started.actor_init_failed = True
    assert why_died(started) == (
        "the same fedimb must be installed on every machine of the cluster "
        "(ModuleNotFoundError: No module named 'fedimb')"
    )
