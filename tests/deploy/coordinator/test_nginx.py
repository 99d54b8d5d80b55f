"""The control port, with a real nginx and a small TLS server behind it: a node's calls arrive, nothing else does."""

import contextlib
import hashlib
import http.client
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from behind_nginx import FORBIDDEN, NGINX, Behind, ask
from behind_nginx import behind as start_behind
from coordinator import make_deployment

from fedimb.deploy import pki
from fedimb.deploy.coordinator import servers
from fedimb.deploy.coordinator.deployment import Deployment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)"),
]


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


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return make_deployment(tmp_path / "Herz $Studie Süd")


@pytest.fixture
def behind(deployment: Deployment) -> Iterator[Behind]:
    server = start_behind(deployment, (deployment.file("server.pem"), deployment.file("server.key")))
    try:
        with _nginx(deployment):
            yield server
    finally:
        server.shutdown()
        server.server_close()


def test_every_call_of_a_node_arrives_as_it_was_sent(deployment: Deployment, behind: Behind) -> None:
    for call in servers.FLEET_CALLS:
        sent = {"flwr-public-key": "abc", "flwr-signature": "def", "flwr-timestamp": "2026-01-01"}
        assert ask(deployment, f"/v1/fleet/{call}", b"ask " + call.encode(), sent) == (200, b"ask " + call.encode())
        path, headers = behind.seen[-1]
        assert path == f"/v1/fleet/{call}"
        assert sent.items() <= headers.items()


@pytest.mark.parametrize("path", FORBIDDEN)
def test_nothing_else_arrives(deployment: Deployment, behind: Behind, path: str) -> None:
    for method in ("POST", "GET"):
        status, _ = ask(deployment, path, b"x", method=method)
        assert status == (400 if "%00" in path else 403)  # nginx refuses a zero byte by itself
    assert behind.seen == []
    assert " 4" in deployment.file("logs", "refused.log").read_text()  # what was refused is on record


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_a_call_is_a_post(deployment: Deployment, behind: Behind, method: str) -> None:
    assert ask(deployment, "/v1/fleet/pull-messages", method=method)[0] == 403
    assert behind.seen == []


def test_what_arrives_is_what_was_matched(deployment: Deployment, behind: Behind) -> None:
    """A path that only means a call after decoding must not reach the server behind in another spelling."""
    for path in ("/v1/control/..%2ffleet/pull-messages", "/v1/control/../fleet/pull-messages?run=1"):
        assert ask(deployment, path, b"x")[0] == 200
    assert {path for path, _ in behind.seen} == {"/v1/fleet/pull-messages"}


def test_a_large_message_passes_both_ways_and_stays_off_the_disk(deployment: Deployment, behind: Behind) -> None:
    body = os.urandom(1_000_000) * 20
    status, back = ask(deployment, "/v1/fleet/push-object", body)
    assert status == 200
    assert len(back) == 20_000_000
    assert hashlib.sha256(back).digest() == hashlib.sha256(body).digest()
    assert "buffered" not in deployment.file("logs", "nginx-error.log").read_text()  # no temporary file


def test_a_server_behind_that_is_not_ours_is_not_asked(deployment: Deployment, tmp_path: Path) -> None:
    key, cert = pki.server_certificate(pki.make_ca("heart"), ["localhost", "127.0.0.1"])
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "cert").write_bytes(cert)
    server = start_behind(deployment, (tmp_path / "cert", tmp_path / "key"))
    try:
        with _nginx(deployment):
            assert ask(deployment, "/v1/fleet/pull-messages", b"secret")[0] == 502
    finally:
        server.shutdown()
        server.server_close()
    assert server.seen == []


def test_a_site_with_another_authority_does_not_talk(deployment: Deployment, behind: Behind, tmp_path: Path) -> None:
    (tmp_path / "other.crt").write_bytes(pki.make_ca("heart")[1])
    trust = ssl.create_default_context(cafile=str(tmp_path / "other.crt"))
    line = http.client.HTTPSConnection("localhost", deployment.config.port, timeout=10, context=trust)
    with pytest.raises(ssl.SSLCertVerificationError):
        line.request("POST", "/v1/fleet/pull-messages", b"x")
    assert behind.seen == []
