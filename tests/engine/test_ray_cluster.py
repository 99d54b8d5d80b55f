"""Two Ray nodes on this machine: workers on both, the bits of inline, and a run that goes on when one node is lost."""

import os
import threading

import pytest
from ray_nodes import two_nodes
from small_runs import launch_in, weights_sha

from fedimb.engine.ray import RayEngine
from fedimb.errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]  # two nodes: a minute to start


@pytest.fixture(scope="module")
def cluster():
    with two_nodes(cpus=1) as started:
        yield started


@pytest.fixture(scope="module")
def joined(cluster):
    with RayEngine(address=cluster.address) as engine:
        engine.start()
        yield engine


def nodes_of(engine):
    """Of each worker, the id of the node it is on."""
    import ray

    calls = [
        actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for actor in engine.pool.actors
    ]
    return ray.get(calls)


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    return weights_sha(launch_in(tmp_path_factory.mktemp("inline"), "engine=inline", "clients.count=7"))


def test_one_worker_per_cpu_of_the_cluster_and_the_bits_of_inline(cluster, joined, inline, tmp_path):
    assert os.environ["RAY_ADDRESS"] == "127.0.0.1:1"
    assert len(set(nodes_of(joined))) == len(joined.pool.actors) == 2
    assert (joined.temp_dir, joined.processes()) == (None, []), "nothing of somebody's cluster is this engine's to end"
    assert weights_sha(launch_in(tmp_path, "engine=ray", "clients.count=7", engine=joined)) == inline


def test_more_workers_than_the_cluster_has_cpus(joined):
    with pytest.raises(ConfigError, match=r"engine.workers=3: Ray has 2 machines with 2 CPUs and 0 GPUs, room for 2"):
        RayEngine(workers=3).start()


def test_a_node_lost_in_a_round_leaves_its_clients_to_the_other(cluster, joined, inline, tmp_path):
    (lost,) = cluster.worker_nodes
    killer = threading.Timer(0.2, cluster.remove_node, (lost, False))
    killer.start()
    result = launch_in(tmp_path, "engine=ray", "clients.count=7", engine=joined)
    killer.join()
    again = launch_in(tmp_path, "engine=ray", "clients.count=7", engine=joined)
    assert len(joined.pool.actors) == 1
    assert weights_sha(result) == weights_sha(again) == inline
