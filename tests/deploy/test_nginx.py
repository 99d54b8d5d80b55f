"""The control port, with a real nginx: sites reach the calls a node makes, nobody reaches anything else.

The first tests put a small TLS server behind nginx that writes down what arrives; the last ones the real SuperLink.
"""

import contextlib
import hashlib
import http.client
import http.server
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from coordinator import free_ports, make_deployment, make_node

from fedimb.deploy import joining, pki, registration, servers, superlink
from fedimb.deploy.deployment import Deployment
from fedimb.deploy.home import NodeHome
from fedimb.engine import processes

_NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_NGINX is None, reason="no nginx here (apt-get install nginx)"),
]
_FORBIDDEN = (
    *("/v1/control/list-nodes", "/v1/control/start-run", "/v1/control/register-node"),
    *("/v1/runtime/acquire-task", "/v1/runtime/push-task-output", "/v1/runtime/responses"),
    *("/docs", "/openapi.json", "/health", "/", "/v1/fleet", "/v1/fleet/", "/v2/fleet/pull-messages"),
    *("/v1/fleet/register-node", "/v1/fleet/unregister-node"),
    *("/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/start-run", "/v1/fleet/pull-messages/x"),
    *("//v1//control/start-run", "/v1/fleet/pull-messages%00", "/v1/fleet/pull-messagesx", "/V1/FLEET/pull-messages"),
)


class _Seen(http.server.BaseHTTPRequestHandler):
    """Answers with the body it got; remembers the paths and headers."""

    server: "_Behind"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *args: object) -> None:
        """Nothing on the screen."""


class _Behind(http.server.ThreadingHTTPServer):
    seen: list[tuple[str, dict[str, str]]]


def _behind(deployment: Deployment, pair: tuple[Path, Path]) -> _Behind:
    server = _Behind(("127.0.0.1", deployment.config.superlink_port), _Seen)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextlib.contextmanager
def _nginx(deployment: Deployment) -> Iterator[None]:
    """nginx of this deployment, without a SuperLink behind it."""
    made = servers.Servers(deployment)
    for folder in ("logs", "state/nginx"):
        deployment.folder(*folder.split("/"))
    deployment.file("nginx.conf").write_text(servers.nginx_config(deployment), "utf-8")
    try:
        made._start_nginx()
        yield
    finally:
        made._end()


def _ask(
    deployment: Deployment, path: str, body: bytes = b"", headers: dict[str, str] | None = None, method: str = "POST"
) -> tuple[int, bytes]:
    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    line = http.client.HTTPSConnection("localhost", deployment.config.port, timeout=60, context=trust)
    with contextlib.closing(line):
        line.request(method, path, body, headers or {})
        answer = line.getresponse()
        return answer.status, answer.read()


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return make_deployment(tmp_path / "Herz $Studie Süd")


@pytest.fixture
def behind(deployment: Deployment) -> Iterator[_Behind]:
    server = _behind(deployment, (deployment.file("server.pem"), deployment.file("server.key")))
    try:
        with _nginx(deployment):
            yield server
    finally:
        server.shutdown()
        server.server_close()


def test_every_call_of_a_node_arrives_as_it_was_sent(deployment: Deployment, behind: _Behind) -> None:
    for call in servers.FLEET_CALLS:
        sent = {"flwr-public-key": "abc", "flwr-signature": "def", "flwr-timestamp": "2026-01-01"}
        assert _ask(deployment, f"/v1/fleet/{call}", b"ask " + call.encode(), sent) == (200, b"ask " + call.encode())
        path, headers = behind.seen[-1]
        assert path == f"/v1/fleet/{call}"
        assert sent.items() <= headers.items()


@pytest.mark.parametrize("path", _FORBIDDEN)
def test_nothing_else_arrives(deployment: Deployment, behind: _Behind, path: str) -> None:
    for method in ("POST", "GET"):
        status, _ = _ask(deployment, path, b"x", method=method)
        assert status == (400 if "%00" in path else 403)  # nginx refuses a zero byte by itself
    assert behind.seen == []
    assert " 4" in deployment.file("logs", "refused.log").read_text()  # what was refused is on record


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_a_call_is_a_post(deployment: Deployment, behind: _Behind, method: str) -> None:
    assert _ask(deployment, "/v1/fleet/pull-messages", method=method)[0] == 403
    assert behind.seen == []


def test_what_arrives_is_what_was_matched(deployment: Deployment, behind: _Behind) -> None:
    """A path that only means a call after decoding must not reach the server behind in another spelling."""
    for path in ("/v1/control/..%2ffleet/pull-messages", "/v1/control/../fleet/pull-messages?run=1"):
        assert _ask(deployment, path, b"x")[0] == 200
    assert {path for path, _ in behind.seen} == {"/v1/fleet/pull-messages"}


def test_a_large_message_passes_both_ways_and_stays_off_the_disk(deployment: Deployment, behind: _Behind) -> None:
    body = os.urandom(1_000_000) * 20
    status, back = _ask(deployment, "/v1/fleet/push-object", body)
    assert status == 200
    assert len(back) == 20_000_000
    assert hashlib.sha256(back).digest() == hashlib.sha256(body).digest()
    assert "buffered" not in deployment.file("logs", "nginx-error.log").read_text()  # no temporary file


def test_a_server_behind_that_is_not_ours_is_not_asked(deployment: Deployment, tmp_path: Path) -> None:
    key, cert = pki.server_certificate(pki.make_ca("heart"), ["localhost", "127.0.0.1"])
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "cert").write_bytes(cert)
    server = _behind(deployment, (tmp_path / "cert", tmp_path / "key"))
    try:
        with _nginx(deployment):
            assert _ask(deployment, "/v1/fleet/pull-messages", b"secret")[0] == 502
    finally:
        server.shutdown()
        server.server_close()
    assert server.seen == []


def test_a_site_with_another_authority_does_not_talk(deployment: Deployment, behind: _Behind, tmp_path: Path) -> None:
    (tmp_path / "other.crt").write_bytes(pki.make_ca("heart")[1])
    trust = ssl.create_default_context(cafile=str(tmp_path / "other.crt"))
    line = http.client.HTTPSConnection("localhost", deployment.config.port, timeout=10, context=trust)
    with pytest.raises(ssl.SSLCertVerificationError):
        line.request("POST", "/v1/fleet/pull-messages", b"x")
    assert behind.seen == []


def _signed(key_file: Path) -> dict[str, str]:
    """The headers with which Flower's node proves its key."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.supercore.date import now
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
    from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

    key, stamp = load_ssh_private_key(key_file.read_bytes(), None), now().isoformat()
    public, signature = public_key_to_bytes(key.public_key()), sign_message(key, stamp.encode())
    words = {"flwr-public-key": b64encode(public).decode(), "flwr-signature": b64encode(signature).decode()}
    return words | {"flwr-timestamp": stamp, "content-type": PROTOBUF_MEDIA_TYPE}


def test_a_node_joins_and_neither_it_nor_a_stranger_reaches_the_control_port(
    deployment: Deployment, tmp_path: Path
) -> None:
    from flwr.proto.control_pb2 import RegisterNodeRequest
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
    from flwr.proto.message_pb2 import PushObjectRequest
    from flwr.proto.node_pb2 import Node

    joining.add_site(deployment, make_node(deployment, tmp_path / "st-anna"))
    make_node(deployment, tmp_path / "stranger")
    home = NodeHome.open(tmp_path / "st-anna")
    body = RegisterNodeRequest(public_key=b"x").SerializeToString()
    with servers.Servers(deployment) as running:
        assert running.joined == ["st-anna: registered"]
        mine = superlink.listening(processes.descendants(os.getpid()))
        reached = {port for _, port in mine if port in (deployment.config.port, deployment.config.superlink_port)}
        assert reached == {deployment.config.port, deployment.config.superlink_port}
        for who in ({}, _signed(home.file("key")), _signed(tmp_path / "stranger" / "key")):
            for path in _FORBIDDEN:
                if "%00" not in path:
                    assert _ask(deployment, path, body, who)[0] == 403
        # A heartbeat with 20 MB behind it, which a reader of protobuf takes for a field it does not know.
        node = Node(node_id=int(registration.registered(deployment)["st-anna"]["node_id"]))
        large = SendNodeHeartbeatRequest(node=node, heartbeat_interval=30).SerializeToString()
        large += PushObjectRequest(object_content=os.urandom(20_000_000)).SerializeToString()
        with _supernode(deployment, home, tmp_path):
            _until_online(deployment, "st-anna", 60)
            status, said = _ask(deployment, "/v1/fleet/send-node-heartbeat", large, _signed(home.file("key")))
            assert status == 200
            assert SendNodeHeartbeatResponse.FromString(said).success
            forged = _signed(tmp_path / "stranger" / "key")
            assert _ask(deployment, "/v1/fleet/send-node-heartbeat", large, forged)[0] == 401
        # A site that is added while the servers run is let in at once.
        joining.add_site(deployment, make_node(deployment, tmp_path / "va"))
        assert registration.reconcile(deployment) == ["va: registered"]
        with _supernode(deployment, NodeHome.open(tmp_path / "va"), tmp_path):
            _until_online(deployment, "va", 60)
        # One that was never added is not.
        with _supernode(deployment, NodeHome.open(tmp_path / "stranger"), tmp_path) as refused:
            assert refused.wait(60) != 0
        started = [int(pid) for pid in servers.json.loads(running._record.read_text())["servers"]]
        assert running.ended() is None
    assert [pid for pid in started if processes.start_time(pid)] == []
    with pytest.raises(OSError, match=r"refused"):
        socket.create_connection(("127.0.0.1", deployment.config.superlink_port), timeout=2)


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
        node = registration.registered(deployment)[site]["node_id"]
        if registration.nodes(deployment)[node]["status"] == "online":
            return
        time.sleep(0.5)
    raise AssertionError(f"{site} did not come online: {deployment.file('logs', 'superlink.log').read_text()[-2000:]}")
