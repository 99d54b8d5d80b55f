"""The control port, with a real nginx and a small TLS server behind it: a node's calls arrive, nothing else does."""

import contextlib
import hashlib
import http.client
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from behind_nginx import FORBIDDEN, NGINX, Behind, ask, nginx_only, signed
from behind_nginx import behind as start_behind
from coordinator import make_deployment, make_node

from fedimb.deploy import pki
from fedimb.deploy.coordinator import nginx, sites
from fedimb.deploy.coordinator.deployment import Deployment

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here (apt-get install nginx)")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("coordinator")


@pytest.fixture(scope="module")
def deployment(place: Path) -> Deployment:
    made = make_deployment(place / "Herz $Studie Süd")
    sites.add_site(made, make_node(made, place / "st-anna"))
    make_node(made, place / "stranger")
    return made


@pytest.fixture(scope="module")
def key(place: Path, deployment: Deployment) -> Path:
    """The key of the deployment's site."""
    return place / "st-anna" / "key"


@pytest.fixture(scope="module")
def running(deployment: Deployment) -> Iterator[Behind]:
    server = start_behind(deployment, (deployment.file("server.pem"), deployment.file("server.key")))
    try:
        with nginx_only(deployment):
            yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def behind(running: Behind) -> Behind:
    running.seen.clear()
    return running


def test_every_call_of_a_node_arrives_as_it_was_sent(deployment: Deployment, behind: Behind, key: Path) -> None:
    for call in nginx.FLEET_CALLS:
        sent = signed(key)
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


def test_what_arrives_is_what_was_matched(deployment: Deployment, behind: Behind, key: Path) -> None:
    """A path that only means a call after decoding must not reach the server behind in another spelling."""
    for path in ("/v1/control/..%2ffleet/pull-messages", "/v1/control/../fleet/pull-messages?run=1"):
        assert ask(deployment, path, b"x", signed(key))[0] == 200
    assert {path for path, _ in behind.seen} == {"/v1/fleet/pull-messages"}


def test_a_piece_of_a_large_model_passes_both_ways_and_stays_off_the_disk(
    deployment: Deployment, behind: Behind, key: Path
) -> None:
    body = os.urandom(1_000_000) * 8  # as large as a body may be; Flower's pieces have 5.2 MB
    status, back = ask(deployment, "/v1/fleet/push-object", body, signed(key))
    assert status == 200
    assert len(back) == 8_000_000
    assert hashlib.sha256(back).digest() == hashlib.sha256(body).digest()
    assert "buffered" not in deployment.file("logs", "nginx-error.log").read_text()  # no temporary file


def test_a_server_behind_that_is_not_ours_is_not_asked(tmp_path: Path) -> None:
    deployment = make_deployment(tmp_path / "d")
    sites.add_site(deployment, make_node(deployment, tmp_path / "st-anna"))
    its_key, cert = pki.server_certificate(pki.make_ca("heart"), ["localhost", "127.0.0.1"])
    (tmp_path / "key").write_bytes(its_key)
    (tmp_path / "cert").write_bytes(cert)
    server = start_behind(deployment, (tmp_path / "cert", tmp_path / "key"))
    try:
        with nginx_only(deployment):
            assert ask(deployment, "/v1/fleet/pull-messages", b"secret", signed(tmp_path / "st-anna" / "key"))[0] == 502
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


def _sent(deployment: Deployment, text: str, size: int = 0) -> tuple[int, bytes, int]:
    """(status, body, bytes sent) of a request written by hand, and zeros after it until an answer comes."""
    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    plain = socket.create_connection(("localhost", deployment.config.port), timeout=30)
    with trust.wrap_socket(plain, server_hostname="localhost") as line:
        line.sendall(text.replace("\n", "\r\n").encode())
        done, zeros = 0, bytes(65536)
        with contextlib.suppress(OSError):  # refused: nginx reads no further
            while done < size and not select.select([line], [], [], 0)[0]:
                done += line.send(zeros)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        return answer.status, answer.read(), done


_POST = "POST /v1/fleet/push-object HTTP/1.1\nHost: localhost\n"


def _lines(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in headers.items())


@pytest.mark.parametrize("who", ["nobody", "stranger", "forger", "late", "early"])
def test_a_body_that_no_site_signed_is_refused_before_it_is_read(
    deployment: Deployment, behind: Behind, place: Path, key: Path, who: str
) -> None:
    stranger = signed(place / "stranger" / "key")
    headers = {
        "nobody": {},
        "stranger": stranger,
        "forger": stranger | {"flwr-public-key": signed(key)["flwr-public-key"]},  # a site's public key is no secret
        "late": signed(key, -400),
        "early": signed(key, 60),
    }[who]
    says = {
        "nobody": "not signed by a node",
        "stranger": "not registered here",
        "forger": "the signature is not this key's",
        "late": "clock is 400 s behind the coordinator's",
        "early": "clock is 60 s ahead of the coordinator's",
    }[who]
    # The body is not sent: whoever reads it before the answer waits for it, and the connection times out.
    status, body, _ = _sent(deployment, f"{_POST}{_lines(headers)}Content-Length: 5000000\n\n")
    assert (status, says in body.decode()) == (401, True)
    assert behind.seen == []
    deadline = time.monotonic() + 10  # the line is written when the connection ends
    while says not in (log := deployment.file("logs", "refused.log").read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert says in log


def test_a_node_that_starts_is_told_why_it_is_refused(deployment: Deployment, behind: Behind, key: Path) -> None:
    """As the SuperLink answers, so that Flower's node writes the reason into its log, and ends."""
    from flwr.supercore.error import FlowerError

    status, body = ask(deployment, "/v1/fleet/activate-node", b"x", signed(key, -1000))
    error = FlowerError.from_json(body.decode())
    assert status == 412
    assert error is not None
    assert "clock is 1000 s behind" in (error.public_details or "")
    assert behind.seen == []


def test_a_call_that_is_too_large_or_has_no_length_is_refused(
    deployment: Deployment, behind: Behind, key: Path
) -> None:
    for who in ({}, signed(key)):
        large = f"{_POST}{_lines(who)}Content-Length: 300000000\n\n"
        status, _, taken = _sent(deployment, large, 300_000_000)
        assert status == 413
        assert taken < 20_000_000
    assert _sent(deployment, f"{_POST}{_lines(signed(key))}Transfer-Encoding: chunked\n\n5\nxxxxx\n0\n\n")[0] == 411
    assert behind.seen == []


def test_a_site_that_is_added_or_removed_is_known_at_once(deployment: Deployment, behind: Behind, place: Path) -> None:
    join = make_node(deployment, place / "va")
    headers = signed(place / "va" / "key")
    assert ask(deployment, "/v1/fleet/pull-messages", b"x", headers)[0] == 401
    sites.add_site(deployment, join)
    assert ask(deployment, "/v1/fleet/pull-messages", b"x", headers)[0] == 200  # as a stranger's calls are limited
    nginx.reload(deployment)
    assert ask(deployment, "/v1/fleet/pull-messages", b"x", headers)[0] == 200
    sites.remove_site(deployment, "va")
    assert ask(deployment, "/v1/fleet/pull-messages", b"x", headers)[0] == 401


def _asked_often(deployment: Deployment, headers: dict[str, str], times: int) -> list[int]:
    """The statuses of that many calls, one after the other on one connection."""
    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    line = http.client.HTTPSConnection("localhost", deployment.config.port, timeout=30, context=trust)
    statuses: list[int] = []
    with contextlib.closing(line):
        while len(statuses) < times:
            try:
                line.request("POST", "/v1/fleet/pull-messages", b"x", headers)
                answer = line.getresponse()
                answer.read()
            except (ConnectionError, ssl.SSLError):  # closed by an nginx that was told to reload
                line.close()
                continue
            statuses.append(answer.status)
    return statuses


def test_a_stranger_behind_the_sites_address_does_not_use_up_their_calls(
    deployment: Deployment, behind: Behind, key: Path, place: Path
) -> None:
    statuses = _asked_often(deployment, signed(place / "stranger" / "key"), 300)
    assert statuses[-20:].count(503) > 10  # limited
    for _ in range(30):
        assert ask(deployment, "/v1/fleet/pull-messages", b"x", signed(key))[0] == 200


def test_while_the_gate_is_away_nodes_are_told_to_come_again(tmp_path: Path) -> None:
    deployment = make_deployment(tmp_path / "d")
    sites.add_site(deployment, make_node(deployment, tmp_path / "st-anna"))
    server = start_behind(deployment, (deployment.file("server.pem"), deployment.file("server.key")))
    try:
        with nginx_only(deployment) as made:
            made._running["gate"].kill()
            made._running["gate"].wait()
            assert ask(deployment, "/v1/fleet/pull-messages", b"x", signed(tmp_path / "st-anna" / "key"))[0] == 503
            assert "gate ended" in str(made.ended())
    finally:
        server.shutdown()
        server.server_close()
    assert server.seen == []


def test_logs_that_grow_are_kept_once(deployment: Deployment, behind: Behind) -> None:
    log = deployment.file("logs", "refused.log")
    ask(deployment, "/v1/fleet/pull-messages")
    nginx.rotate_logs(deployment, log.stat().st_size)
    assert not log.with_name("refused.log.1").exists()
    nginx.rotate_logs(deployment, log.stat().st_size - 1)
    assert log.with_name("refused.log.1").exists()
    deadline = time.monotonic() + 10
    # nginx opens it anew in its own time, and until then writes to the old one
    while not (log.exists() and "/v1/fleet/get-run" in log.read_text()) and time.monotonic() < deadline:
        ask(deployment, "/v1/fleet/get-run")
        time.sleep(0.05)
    assert "/v1/fleet/get-run" in log.read_text()
