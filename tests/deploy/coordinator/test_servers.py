"""What nginx lets through is what nodes call, no more; servers are started on sound files and ended by their ids."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from behind_nginx import limited
from coordinator import make_deployment, make_node

from fedimb.deploy import pki
from fedimb.deploy.coordinator import creation as founding
from fedimb.deploy.coordinator import nginx, servers, sites
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.engine import processes
from fedimb.errors import ConfigError, RunFailed


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return make_deployment(tmp_path / "Herz Süd")


def test_the_calls_let_through_are_flowers_without_those_of_the_coordinator() -> None:
    from flwr.superlink.routers.fleet.router import router

    routes = {route.path.removeprefix("/v1/fleet/") for route in router.routes}
    assert routes - set(servers.FLEET_CALLS) == {"register-node", "unregister-node"}
    assert set(servers.FLEET_CALLS) <= routes


@pytest.mark.parametrize(
    ("host", "listens"),
    [("localhost", "127.0.0.1:{}"), ("127.0.0.1", "127.0.0.1:{}"), ("fl.example.org", "{}")],
)
def test_nginx_listens_to_the_world_only_under_a_public_name(tmp_path: Path, host: str, listens: str) -> None:
    deployment = make_deployment(tmp_path / "d", host)
    text = servers.nginx_config(deployment)
    assert f"listen {listens.format(deployment.config.port)} ssl;" in text
    assert f"proxy_pass                    https://127.0.0.1:{deployment.config.superlink_port}/v1/fleet/$1;" in text
    assert "@" not in text.replace("@refused", "").replace("@busy", "")


def test_limits_are_those_of_deploy_yaml_and_sites_share_the_calls(tmp_path: Path) -> None:
    deployment = make_deployment(tmp_path / "d")
    for site in ("linz", "va", "wien", "zug"):
        sites.add_site(deployment, make_node(deployment, tmp_path / site))
    text = nginx.nginx_config(deployment)
    assert "client_max_body_size    8000000;" in text
    assert "zone=member:4m    rate=50r/s;" in text  # 200 by four
    assert text.count("ecdsa") == 0
    assert sum(f'" {site};' in text for site in ("linz", "va", "wien", "zug")) == 4
    deployment = limited(deployment, body_mb=20, calls_per_s=7, header_s=3, body_s=4, calls_at_once=9, connections=99)
    text = nginx.nginx_config(deployment)
    for line in (
        *(
            "client_max_body_size    20000000;",
            "rate=7r/s;",
            "client_header_timeout       3s;",
            "limit_conn at_once 9;",
        ),
        *("client_body_timeout     4s;", "worker_connections 99;", "worker_rlimit_nofile 227;"),
    ):
        assert line in text
    assert "bodies of 20 MB" in nginx.limits_line(deployment)
    assert "7 per second" in nginx.limits_line(deployment)


def test_more_connections_than_the_account_may_open_are_said(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nginx.limit_warnings(limited(deployment, connections=100)) == []
    monkeypatch.setattr(nginx.resource, "getrlimit", lambda _: (1024, 1024))
    deployment = limited(deployment, connections=8192)
    (line,) = nginx.limit_warnings(deployment)
    assert "896 connections per worker, not 8192" in line
    assert "LimitNOFILE" in line
    assert "worker_connections 896;" in nginx.nginx_config(deployment)


@pytest.mark.parametrize("wrong", [{"body_mb": 0}, {"calls_at_once": 1}, {"header_s": 0}, {"body": 3}])
def test_limits_that_let_no_node_through_are_refused(deployment: Deployment, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="limits"):
        _ = limited(deployment, **wrong).config


def test_a_setting_that_would_bind_elsewhere_is_refused(deployment: Deployment) -> None:
    path = deployment.file("deploy.yaml")
    path.write_text(path.read_text("utf-8") + "superlink_host: 0.0.0.0\n", "utf-8")
    with pytest.raises(ConfigError, match="superlink_host"):
        _ = Deployment.open(deployment.root).config


def test_a_superlink_that_others_reach_is_ended(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"import socket, time; s = socket.create_server(('0.0.0.0', {deployment.config.superlink_port})); "
    argv = [sys.executable, "-c", script + "time.sleep(60)"]
    monkeypatch.setattr(servers, "superlink_command", lambda _: (argv, dict(os.environ)))
    monkeypatch.setattr(servers.superlink, "healthy", _connects)
    made = servers.Servers(deployment)
    with pytest.raises(ConfigError, match=rf"listens on 0\.0\.0\.0:{deployment.config.superlink_port}"), made:
        pass
    assert not _connects(deployment)
    assert not deployment.file("state", "servers.json").exists()


def _connects(deployment: Deployment) -> bool:
    try:
        socket.create_connection(("127.0.0.1", deployment.config.superlink_port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_superlink_that_does_not_start_is_told_with_its_words(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [sys.executable, "-c", "raise SystemExit('kein Platz auf der Platte')"]
    monkeypatch.setattr(servers, "superlink_command", lambda _: (argv, dict(os.environ)))
    with pytest.raises(RunFailed, match="kein Platz auf der Platte"), servers.Servers(deployment):
        pass


def test_a_taken_port_is_named(deployment: Deployment) -> None:
    port = deployment.config.superlink_port
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(ConfigError, match=f"port {port} cannot be used.*superlink_port"),
        servers.Servers(deployment),
    ):
        pass


@pytest.mark.parametrize("trouble", ["missing", "readable", "foreign", "renamed", "expired"])
def test_unsound_files_are_refused_before_anything_starts(deployment: Deployment, trouble: str) -> None:
    if trouble == "missing":
        deployment.file("server.pem").unlink()
    elif trouble == "readable":
        deployment.file("server.key").chmod(0o644)
    elif trouble == "foreign":
        deployment.file("ca.crt").write_bytes(pki.make_ca("heart")[1])
    elif trouble == "renamed":
        path = deployment.file("deploy.yaml")
        path.write_text(path.read_text("utf-8").replace("localhost", "fl.example.org"), "utf-8")
    else:
        ca = deployment.file("ca.key").read_bytes(), deployment.file("ca.crt").read_bytes()
        deployment.file("server.pem").write_bytes(pki.server_certificate(ca, ["localhost"], days=0)[1])
    deployment = Deployment.open(deployment.root)
    says = {
        "missing": r"server\.pem does not exist",
        "readable": "0644",
        "foreign": "not signed by ca.crt.*deploy renew",
        "renamed": "is not valid for fl.example.org.*deploy renew",
        "expired": "expired on .*deploy renew",
    }[trouble]
    with pytest.raises(ConfigError, match=says), servers.Servers(deployment):
        pass
    assert not deployment.file("nginx.conf").exists()


def test_leftovers_of_a_killed_start_are_ended_and_a_living_one_is_left_alone(deployment: Deployment) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        record = deployment.file("state", "servers.json")
        up = processes.record([os.getpid()])
        record.write_text(servers.json.dumps({"up": up, "servers": processes.record([sleeper.pid])}))
        made = servers.Servers(deployment)
        with pytest.raises(ConfigError, match=f"up already .process {os.getpid()}"):
            made._clear_leftovers()
        assert sleeper.poll() is None
        other = {str(os.getpid()): "1"}  # this id, but a process that started at another time
        record.write_text(servers.json.dumps({"up": other, "servers": processes.record([sleeper.pid])}))
        made._clear_leftovers()
        deadline = time.monotonic() + 5
        while sleeper.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sleeper.poll() is not None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_without_nginx_the_package_is_named(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx.shutil, "which", lambda *args, **words: None)
    with pytest.raises(ConfigError, match="apt-get install nginx"):
        servers.nginx_command(deployment)


def test_renewed_files_are_sound(deployment: Deployment) -> None:
    founding.renew_certificate(deployment)
    servers._check_files(deployment)
