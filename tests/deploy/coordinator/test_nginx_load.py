"""What nginx withstands: half-open and half-said calls by the thousand, slow bodies, large models from one address.

All of it on loopback, bounded in number and time: every connection is closed by nginx or at the end of its test.
"""

import contextlib
import http.client
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from behind_nginx import NGINX, Behind, ask, limited, nginx_only, signed
from behind_nginx import behind as start_behind
from coordinator import make_deployment, make_node

from fedimb.deploy.coordinator import nginx, sites
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.traffic import PIECE

LORIS = 1024
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
    pytest.mark.skipif(
        resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 3 * LORIS,
        reason=f"needs {3 * LORIS} open files (ulimit -n), for both ends of {LORIS} connections",
    ),
]
SITES = ("linz", "va", "wien", "zug")


@contextlib.contextmanager
def _open(root: Path, **limits: int) -> Iterator[tuple[Deployment, Behind]]:
    """A deployment of four sites with these limits, its nginx, and a server behind it."""
    deployment = limited(make_deployment(root / "d"), **limits)
    for site in SITES:
        sites.add_site(deployment, make_node(deployment, root / site))
    server = start_behind(deployment, (deployment.file("server.pem"), deployment.file("server.key")))
    try:
        with nginx_only(deployment):
            yield deployment, server
    finally:
        server.shutdown()
        server.server_close()


def _tls(deployment: Deployment, plain: socket.socket) -> ssl.SSLSocket:
    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    return trust.wrap_socket(plain, server_hostname="localhost")


@contextlib.contextmanager
def _half_said(deployment: Deployment, count: int) -> Iterator[list[socket.socket]]:
    """So many connections that stop in the middle: of nothing, of a TLS handshake, of a header, in turn."""
    lines: list[socket.socket] = []
    with contextlib.ExitStack() as open_ones:
        for i in range(count):
            try:
                line = socket.create_connection(("localhost", deployment.config.port), timeout=20)
                open_ones.callback(line.close)
                if i % 3 == 1:
                    line.sendall(b"\x16\x03\x01\x02")  # the beginning of a ClientHello
                elif i % 3 == 2:
                    line = _tls(deployment, line)
                    open_ones.callback(line.close)
                    line.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nX-")
            except OSError:  # nginx has no connection left
                continue
            lines.append(line)
        yield lines


def _closed(line: socket.socket, within_s: float) -> bool:
    """Whether the other end closes a connection within this time."""
    line.settimeout(within_s)
    try:
        while line.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_a_slow_loris_of_1024_connections_does_not_shut_out_a_site_and_is_ended(tmp_path: Path) -> None:
    with _open(tmp_path, header_s=4) as (deployment, server), _half_said(deployment, LORIS) as lines:
        assert len(lines) == LORIS
        start = time.monotonic()
        for site in SITES:
            assert ask(deployment, "/v1/fleet/push-object", bytes(PIECE), signed(tmp_path / site / "key"))[0] == 200
        assert len(server.seen) == len(SITES)
        # The TLS handshake and the header each have their time; nobody's bytes are waited for longer than both.
        assert all(_closed(line, max(0.1, start + 30 - time.monotonic())) for line in lines)


def test_with_fewer_connections_it_would(tmp_path: Path) -> None:
    """The same on an nginx with fewer connections than the loris: the test above is able to fail."""
    with (
        _open(tmp_path, header_s=60, connections=64) as (deployment, _),
        _half_said(deployment, 300),
        pytest.raises(OSError, match=r"."),
    ):
        ask(deployment, "/v1/fleet/pull-messages", b"x", signed(tmp_path / "va" / "key"))


def test_a_body_that_stops_is_ended_and_what_was_sent_of_it_never_arrives(tmp_path: Path) -> None:
    with _open(tmp_path, body_s=2) as (deployment, server):
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed(tmp_path / "va" / "key").items())
        head = f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: 5000000\r\n\r\n"
        with _tls(deployment, socket.create_connection(("localhost", deployment.config.port), timeout=30)) as line:
            line.sendall(head.encode() + bytes(4_000_000))
            assert ask(deployment, "/v1/fleet/pull-messages", b"x", signed(tmp_path / "zug" / "key"))[0] == 200
            assert _closed(line, 30)
        assert [path for path, _ in server.seen] == ["/v1/fleet/pull-messages"]


def test_calls_of_one_site_at_once_are_limited_and_the_others_are_not(tmp_path: Path) -> None:
    """Bodies that stop use up their own site's calls, also beside other sites behind the same address."""
    with _open(tmp_path, body_s=20, calls_at_once=4) as (deployment, _), contextlib.ExitStack() as open_ones:
        for _ in range(4):
            plain = socket.create_connection(("localhost", deployment.config.port), timeout=30)
            line = open_ones.enter_context(_tls(deployment, plain))
            lines = "".join(f"{name}: {value}\r\n" for name, value in signed(tmp_path / "va" / "key").items())
            head = f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: 5000000\r\n\r\n"
            line.sendall(head.encode() + bytes(1000))
        deadline = time.monotonic() + 10
        while _status(deployment, tmp_path / "va" / "key") != 503 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert _status(deployment, tmp_path / "va" / "key") == 503  # which a node repeats
        for site in ("linz", "wien", "zug"):
            assert _status(deployment, tmp_path / site / "key") == 200


def _status(deployment: Deployment, key: Path) -> int:
    return ask(deployment, "/v1/fleet/pull-messages", b"x", signed(key))[0]


def _prepare_answers(server: Behind) -> None:
    from flwr.proto.fleet_pb2 import ActivateNodeResponse, DeactivateNodeResponse
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
    from flwr.proto.message_pb2 import PushObjectResponse

    server.answers = {
        "/v1/fleet/activate-node": ActivateNodeResponse(node_id=7).SerializeToString(),
        "/v1/fleet/deactivate-node": DeactivateNodeResponse().SerializeToString(),
        "/v1/fleet/send-node-heartbeat": SendNodeHeartbeatResponse(success=True).SerializeToString(),
        "/v1/fleet/push-object": PushObjectResponse(stored=True).SerializeToString(),
    }


def _sends_model(deployment: Deployment, key_file: Path, megabytes: int) -> None:
    """A site's part, with Flower's own client: it starts, sends so many MB of objects two at a time, and ends."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.supercore.inflatable.inflatable_utils import push_object_contents_from_iterable
    from flwr.supernode.fleet_http_connection import http_request_response

    key = load_ssh_private_key(key_file.read_bytes(), None)
    address = f"localhost:{deployment.config.port}"
    ca = deployment.file("ca.crt").read_bytes()
    with http_request_response(address, False, ca, (key, key.public_key()), max_retries=0) as call:
        pieces = [(f"{i:064x}", os.urandom(PIECE)) for i in range(megabytes * 1_000_000 // PIECE + 1)]
        push_object_contents_from_iterable(pieces, lambda name, content: call[6](1, "session", name, content))


@pytest.mark.parametrize("stranger", [False, True])
def test_a_100_mb_model_from_four_sites_behind_one_address_passes(tmp_path: Path, stranger: bool) -> None:
    """No call of a site is refused, and none is repeated, whatever a stranger behind the same address does."""
    with _open(tmp_path) as (deployment, server):
        _prepare_answers(server)
        done = threading.Event()
        flood = threading.Thread(target=_floods, args=(deployment, done), daemon=True)
        if stranger:
            flood.start()
        try:
            with ThreadPoolExecutor(len(SITES)) as pool:
                list(pool.map(lambda site: _sends_model(deployment, tmp_path / site / "key", 100), SITES))
        finally:
            done.set()
        lengths = [int(headers["content-length"]) for path, headers in server.seen if path.endswith("push-object")]
        assert len(lengths) == len(SITES) * (100_000_000 // PIECE + 1)
        assert max(lengths) < PIECE + 1024
        refused = deployment.file("logs", "refused.log").read_text().splitlines()
        assert [line for line in refused if any(f'"{site}"' in line for site in SITES)] == []
        assert (len(refused) > 100) == stranger


def _floods(deployment: Deployment, done: threading.Event) -> None:
    """Calls without a site's key, as fast as they are answered; at most 20,000, and not after ``done``."""
    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    line = http.client.HTTPSConnection("localhost", deployment.config.port, timeout=30, context=trust)
    for _ in range(20_000):
        if done.is_set():
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            line.request("POST", "/v1/fleet/push-object", bytes(1000))
            line.getresponse().read()
    line.close()


def test_nginx_is_told_to_reload_while_a_model_is_sent(tmp_path: Path) -> None:
    """A site is added during a run: nothing that is under way is lost."""
    with _open(tmp_path) as (deployment, server):
        _prepare_answers(server)
        with ThreadPoolExecutor(2) as pool:
            sends = [pool.submit(_sends_model, deployment, tmp_path / site / "key", 50) for site in ("va", "zug")]
            while not all(one.done() for one in sends):
                sites.add_site(deployment, make_node(deployment, tmp_path / f"new-{time.time_ns()}"))
                nginx.reload(deployment)
                time.sleep(0.3)
            for one in sends:
                one.result()
        lengths = [path for path, _ in server.seen if path.endswith("push-object")]
        assert len(lengths) == 2 * (50_000_000 // PIECE + 1)
