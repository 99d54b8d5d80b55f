"""A real nginx's surroundings: a TLS server behind it that writes down what arrives, the gate, clients before it."""

import contextlib
import http.client
import http.server
import os
import shutil
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from fedimb.deploy.coordinator import nginx, servers
from fedimb.deploy.coordinator.deployment import Deployment

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
FORBIDDEN = (
    *("/v1/control/list-nodes", "/v1/control/start-run", "/v1/control/register-node"),
    *("/v1/runtime/acquire-task", "/v1/runtime/push-task-output", "/v1/runtime/responses"),
    *("/docs", "/openapi.json", "/health", "/", "/v1/fleet", "/v1/fleet/", "/v2/fleet/pull-messages"),
    *("/v1/fleet/register-node", "/v1/fleet/unregister-node"),
    *("/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/start-run", "/v1/fleet/pull-messages/x"),
    *("//v1//control/start-run", "/v1/fleet/pull-messages%00", "/v1/fleet/pull-messagesx", "/V1/FLEET/pull-messages"),
)
"""Paths that nobody may reach, some of them spelled to look like a node's call. nginx itself answers 400 to %00."""


class Seen(http.server.BaseHTTPRequestHandler):
    """Answers with the body it got; remembers the paths and headers."""

    server: "Behind"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        body = self.server.answers.get(self.path, body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *args: object) -> None:
        """Nothing on the screen."""


class Behind(http.server.ThreadingHTTPServer):
    """The server behind; ``seen``: (path, headers) of what arrived; ``answers``: by path, else the body."""

    seen: list[tuple[str, dict[str, str]]]
    answers: dict[str, bytes]


def behind(deployment: Deployment, pair: tuple[Path, Path]) -> Behind:
    """Start one with a (certificate, key) where nginx looks for the SuperLink."""
    server = Behind(("127.0.0.1", deployment.config.superlink_port), Seen)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.seen, server.answers = [], {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextlib.contextmanager
def nginx_only(deployment: Deployment) -> Iterator[servers.Servers]:
    """nginx and the gate of this deployment, without a SuperLink behind them."""
    made = servers.Servers(deployment)
    nginx.write_config(deployment)
    try:
        made._start_gate()
        made._start_nginx()
        yield made
    finally:
        made._end()


def limited(deployment: Deployment, **limits: int) -> Deployment:
    """The deployment with these `TrafficLimits` in its deploy.yaml."""
    path = deployment.file("deploy.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text("utf-8")) | {"limits": limits}), "utf-8")
    return Deployment.open(deployment.root)


def signed(key_file: Path, ahead_s: float = 0.0) -> dict[str, str]:
    """The headers with which Flower's node proves its key, by a clock that is so far ahead. See
    flwr.supernode.node_auth_http_interceptor; a test compares the two.
    """
    key = load_ssh_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    stamp = (datetime.now(UTC) + timedelta(seconds=ahead_s)).isoformat()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
    words = {"flwr-public-key": b64encode(public).decode(), "flwr-signature": b64encode(signature).decode()}
    return words | {"flwr-timestamp": stamp, "content-type": "application/protobuf"}


def ask(
    deployment: Deployment, path: str, body: bytes = b"", headers: dict[str, str] | None = None, method: str = "POST"
) -> tuple[int, bytes]:
    """(status, body) of one request to the public port, trusting the deployment's authority."""
    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    line = http.client.HTTPSConnection("localhost", deployment.config.port, timeout=60, context=trust)
    with contextlib.closing(line):
        line.request(method, path, body, headers or {})
        answer = line.getresponse()
        return answer.status, answer.read()
