"""Reaching the coordinator: a real TLS server and a real CONNECT proxy on loopback, in order and out of it."""

import http.server
import socket
import ssl
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from fedimb.deploy.home import NodeHome
from fedimb.deploy.pki import fingerprint, make_ca, server_certificate
from fedimb.deploy.site import reach


@pytest.fixture(scope="module")
def authorities():
    """The coordinator's, and a stranger's."""
    return make_ca("heart"), make_ca("other")


@pytest.fixture
def home(tmp_path: Path, authorities) -> NodeHome:
    root = tmp_path / "hungary"
    root.mkdir(mode=0o700)
    (root / "node.yaml").write_text("site: hungary\n")
    (root / "ca.crt").write_bytes(authorities[0][1])
    return NodeHome.open(root)


class Coordinator(http.server.BaseHTTPRequestHandler):
    away = 0.0

    def do_GET(self):
        self.send_response_only(403)
        self.send_header("Date", formatdate(time.time() - self.away, usegmt=True))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def coordinator(home, tmp_path, authorities):
    """Start one; returns a function that sets node.yaml's entry for it."""
    servers = []

    def start(host="127.0.0.1", names=("127.0.0.1",), authority=authorities[0], away=0.0, tls=True):
        class Here(Coordinator):
            pass

        Here.away = away
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Here)
        if tls:
            key, pem = server_certificate(authority, names)
            (tmp_path / "server.pem").write_bytes(key + pem)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "server.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        address(home, host, server.server_address[1], authorities[0][1])
        return server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def address(home, host, port, ca, more=""):
    (home.root / "node.yaml").write_text(
        f"site: hungary\ncoordinator: {{host: '{host}', port: {port}, ca_fingerprint: '{fingerprint(ca)}'}}\n{more}"
    )
    home.__dict__.pop("config", None)


def looked(home):
    return {one.name: one for one in reach.reach(home, timeout_s=5)}


def test_a_coordinator_in_order(home, coordinator):
    coordinator()
    found = looked(home)
    assert [one.level for one in found.values()] == ["ok"] * 4
    assert found["coordinator"].found.endswith("responds with TLSv1.3, signed by the authority in ca.crt")
    assert found["clock"].found == "agrees with the coordinator's"


@pytest.mark.parametrize(
    ("away", "level", "says"),
    [
        *((400, "fail", " s ahead of"), (30, "fail", "fails at 5 s ahead or more"), (4, "warn", " s ahead of")),
        *((-400, "fail", "fails at 300 s or more"), (-100, "warn", "behind"), (-30, "ok", " s behind")),
    ],
)
def test_clocks_apart(home, coordinator, away, level, says):
    coordinator(away=away)
    clock = looked(home)["clock"]
    assert (clock.level, says in clock.found) == (level, True)


def test_certificates_that_are_not_the_coordinators(home, coordinator, authorities):
    coordinator(authority=authorities[1])
    assert "certificate is not trusted" in looked(home)["coordinator"].found
    coordinator(names=("localhost",))
    assert "certificate is not trusted" in looked(home)["coordinator"].found
    coordinator(tls=False)
    assert "no TLS on this port" in looked(home)["coordinator"].found


def test_another_authority_than_the_one_confirmed(home, coordinator, authorities):
    coordinator()
    home.file("ca.crt").write_bytes(authorities[1][1])
    assert "another fingerprint" in looked(home)["coordinator"].found


def test_nobody_there(home, authorities):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address(home, "127.0.0.1", port, authorities[0][1])
    found = looked(home)
    assert found["coordinator"].level == "fail"
    assert "nothing listens there" in found["coordinator"].found
    assert not {"clock", "certificate"} & set(found)
    address(home, "no-such-host.invalid", port, authorities[0][1])
    assert "name cannot be resolved" in looked(home)["coordinator"].found
    (home.root / "node.yaml").write_text("site: hungary\n")
    home.__dict__.pop("config")
    assert looked(home)["coordinator"].found == "node.yaml does not name one"


def proxy(asked, refuse=False):
    """A CONNECT proxy of one connection at a time that sends every name to 127.0.0.1."""
    listening = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass

    def serve():
        client, _ = listening.accept()
        with client:
            head = client.recv(65536).decode()
            asked.append(head)
            if refuse:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return
            port = int(head.split()[1].rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as server:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(server, client), daemon=True)
                back.start()
                pump(client, server)
                server.shutdown(socket.SHUT_WR)
                back.join(5)

    threading.Thread(target=serve, daemon=True).start()
    return listening


def test_through_a_proxy(home, coordinator, authorities):
    port = coordinator(names=("coordinator.example",))
    asked = []
    with proxy(asked) as listening:
        more = f"proxy: http://anna:se%20cret@127.0.0.1:{listening.getsockname()[1]}\n"
        address(home, "coordinator.example", port, authorities[0][1], more)
        found = looked(home)
    assert [one.level for one in found.values()] == ["ok"] * 4
    assert asked[0].startswith(f"CONNECT coordinator.example:{port} ")
    assert "Basic YW5uYTpzZSBjcmV0" in asked[0]  # anna:se cret
    assert "cret" not in str(found)
    with proxy(asked, refuse=True) as listening:
        more = f"proxy: http://127.0.0.1:{listening.getsockname()[1]}\n"
        address(home, "coordinator.example", port, authorities[0][1], more)
        assert "the proxy refuses" in looked(home)["coordinator"].found
    address(home, "127.0.0.1", port, authorities[0][1], more)
    assert looked(home)["proxy"].found == "none: the node connects directly"  # loopback never goes through one
