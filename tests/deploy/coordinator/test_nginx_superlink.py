"""The control port, with a real nginx, the real SuperLink and stock nodes: sites join, and nobody reaches more."""

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from behind_nginx import FORBIDDEN, NGINX, ask, signed
from coordinator import free_ports, make_deployment, make_node

from fedimb.deploy.coordinator import registration, servers, sites, superlink
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.home import NodeHome
from fedimb.engine import processes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
]


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return make_deployment(tmp_path / "Herz $Studie Süd")


def test_a_node_joins_and_neither_it_nor_a_stranger_reaches_the_control_port(
    deployment: Deployment, tmp_path: Path
) -> None:
    from flwr.proto.control_pb2 import RegisterNodeRequest
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
    from flwr.proto.message_pb2 import PushObjectRequest
    from flwr.proto.node_pb2 import Node

    sites.add_site(deployment, make_node(deployment, tmp_path / "st-anna"))
    make_node(deployment, tmp_path / "stranger")
    home = NodeHome.open(tmp_path / "st-anna")
    body = RegisterNodeRequest(public_key=b"x").SerializeToString()
    with servers.Servers(deployment) as running:
        assert running.site_lines == ["st-anna: registered"]
        mine = superlink.listening_sockets(processes.descendants(os.getpid()))
        reached = {port for _, port in mine if port in (deployment.config.port, deployment.config.superlink_port)}
        assert reached == {deployment.config.port, deployment.config.superlink_port}
        for who in ({}, signed(home.file("key")), signed(tmp_path / "stranger" / "key")):
            for path in FORBIDDEN:
                if "%00" not in path:
                    assert ask(deployment, path, body, who)[0] == 403
        # A heartbeat with 7 MB behind it, which a reader of protobuf takes for a field it does not know.
        node = Node(node_id=int(registration.registered_sites(deployment)["st-anna"]["node_id"]))
        large = SendNodeHeartbeatRequest(node=node, heartbeat_interval=30).SerializeToString()
        large += PushObjectRequest(object_content=os.urandom(7_000_000)).SerializeToString()
        with _supernode(deployment, home, tmp_path):
            _until_online(deployment, "st-anna", 240)
            status, said = ask(deployment, "/v1/fleet/send-node-heartbeat", large, signed(home.file("key")))
            assert status == 200
            assert SendNodeHeartbeatResponse.FromString(said).success
            forged = signed(tmp_path / "stranger" / "key")
            assert ask(deployment, "/v1/fleet/send-node-heartbeat", large, forged)[0] == 401
        # A site that is added while the servers run is let in at once.
        sites.add_site(deployment, make_node(deployment, tmp_path / "va"))
        assert registration.reconcile(deployment) == ["va: registered"]
        with _supernode(deployment, NodeHome.open(tmp_path / "va"), tmp_path):
            _until_online(deployment, "va", 240)
        # One that was never added is not.
        with _supernode(deployment, NodeHome.open(tmp_path / "stranger"), tmp_path) as refused:
            assert refused.wait(240) != 0
        started = [int(pid) for pid in servers.json.loads(running._record.read_text())["servers"]]
        assert running.ended() is None
    assert [pid for pid in started if processes.start_time(pid)] == []
    with pytest.raises(OSError, match=r"refused"):
        socket.create_connection(("127.0.0.1", deployment.config.superlink_port), timeout=2)


def _memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def _post(deployment: Deployment, port: int, megabytes: int) -> None:
    """A stranger's post of so many MB, which reads as an object; until it is sent, or refused."""
    from flwr.proto.message_pb2 import PushObjectRequest

    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    total = megabytes * 1_000_000
    # Protobuf: the tag of the field with an object's content, and its length in five groups of seven bits.
    rest = total - 6
    head = PushObjectRequest(object_content=b"x").SerializeToString()[:1]
    head += bytes([rest >> shift & 127 | 128 for shift in (0, 7, 14, 21)]) + bytes([rest >> 28])
    line = http.client.HTTPSConnection("localhost", port, timeout=120, context=trust)
    with contextlib.closing(line), contextlib.suppress(OSError, http.client.HTTPException):
        line.putrequest("POST", "/v1/fleet/push-object")
        line.putheader("content-type", "application/protobuf")
        line.putheader("content-length", str(total))
        line.endheaders()
        line.send(head + bytes(999_994))
        for _ in range(megabytes - 1):
            line.send(bytes(1_000_000))
        assert line.getresponse().status == 401


def test_a_strangers_posts_do_not_make_the_superlink_grow(deployment: Deployment) -> None:
    """Beside the same SuperLink without nginx in front, which reads a body before it looks at the key."""
    with servers.Servers(deployment) as running:
        pid = running._running["superlink"].pid
        grown = {}
        for name, port, sizes in (
            ("large", deployment.config.port, (300, 300)),
            ("allowed", deployment.config.port, (7, 7, 7, 7, 7, 7, 7, 7)),
            ("control", deployment.config.superlink_port, (100,)),
        ):
            before = _memory_mb(pid)
            senders = [threading.Thread(target=_post, args=(deployment, port, size)) for size in sizes]
            for one in senders:
                one.start()
            top = before
            while any(one.is_alive() for one in senders):
                top = max(top, _memory_mb(pid))
                time.sleep(0.05)
            grown[name] = top - before
    assert grown["control"] > 100
    assert max(grown["large"], grown["allowed"]) < 0.05 * grown["control"]


@contextlib.contextmanager
def _supernode(deployment: Deployment, home: NodeHome, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A stock flower-supernode with a site's key, through nginx."""
    (port,) = free_ports(1)
    env = superlink.flower_env(deployment) | {"FLWR_HOME": str(home.folder("flwr"))}
    argv = [str(Path(sys.executable).parent / "flower-supernode"), "--root-certificates", str(home.file("ca.crt"))]
    argv += ["--superlink", f"localhost:{deployment.config.port}", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--auth-supernode-private-key", str(home.file("key"))]
    with (tmp_path / f"{home.site}.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=env, cwd=home.folder("neutral"))
    try:
        yield process
    finally:
        started = processes.record([process.pid, *processes.descendants(process.pid)])
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        processes.end(started)
        process.wait()


def _until_online(deployment: Deployment, site: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        node = registration.registered_sites(deployment)[site]["node_id"]
        if registration.list_nodes(deployment)[node]["status"] == "online":
            return
        time.sleep(0.5)
    raise AssertionError(f"{site} did not come online: {deployment.file('logs', 'superlink.log').read_text()[-2000:]}")
