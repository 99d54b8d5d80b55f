"""A Ray cluster of two nodes on this machine, for tests."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest

from fedimb.engine.processes import marked
from fedimb.engine.ray_private import lean_head


@contextlib.contextmanager
def two_nodes(cpus):
    """Two nodes of so many CPUs each; nothing of it is left afterwards."""
    from ray.cluster_utils import Cluster

    folder = Path(tempfile.mkdtemp(prefix="fc-", dir="/tmp"))  # names of sockets hold 107 bytes
    small = {"num_cpus": cpus, "object_store_memory": 80 * 1024**2, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # a cluster that is gone
        started = Cluster()
        try:
            with lean_head():
                started.add_node(**small)
            started.add_node(**small)
            yield started
        finally:
            started.shutdown()
            left = marked(str(folder))
            shutil.rmtree(folder, ignore_errors=True)
    assert left == []
