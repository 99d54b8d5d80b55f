"""The SuperLink is started on loopback, with no setting of Flower's from outside, and its sockets are looked at."""

import contextlib
import os
import socket
import sqlite3
import stat
import sys
import tomllib
from pathlib import Path

import pytest
from coordinator import make_deployment

from fedimb.deploy.coordinator import superlink
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.errors import RunFailed


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return make_deployment(tmp_path / 'Süd "heart"')


def test_flower_accepts_the_command_line_and_binds_loopback(deployment: Deployment) -> None:
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink

    argv, _ = superlink.superlink_command(deployment)
    assert Path(argv[0]).name == "flower-superlink"
    parsed = _parse_args_run_superlink().parse_args(argv[1:])
    assert (parsed.host, parsed.port) == ("127.0.0.1", deployment.config.superlink_port)
    assert parsed.enable_supernode_auth
    assert not parsed.insecure
    assert not parsed.runtime_dependency_install
    for path in (parsed.ssl_certfile, parsed.ssl_keyfile, parsed.ssl_ca_certfile):
        assert Path(path).is_file()
    assert Path(parsed.database).parent == deployment.file("state")


def test_no_setting_of_flower_comes_from_outside(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.common.constant import FLWR_INTERNAL_GRPC_CONTROL_API, FLWR_INTERNAL_GRPC_FLEET_API

    for name in (FLWR_INTERNAL_GRPC_CONTROL_API, FLWR_INTERNAL_GRPC_FLEET_API):  # each opens a port on every address
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "intern.example")
    monkeypatch.setenv("PYTHONPATH", "/old/code")
    _, env = superlink.superlink_command(deployment)
    assert {name: value for name, value in env.items() if name.startswith("FLWR_")} == {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_HOME": str(deployment.file("flwr")),
    }
    assert "PYTHONPATH" not in env
    assert env["NO_PROXY"] == env["no_proxy"] == "127.0.0.1,localhost,intern.example"
    assert env["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert (Path(env["PATH"].split(os.pathsep)[0]) / "flower-superexec").is_file()  # it is started by name


def test_flwr_finds_the_superlink_by_its_connection(deployment: Deployment) -> None:
    superlink.flower_env(deployment)
    config = tomllib.loads(deployment.file("flwr", "config.toml").read_text("utf-8"))["superlink"]
    assert config["default"] == superlink.CONNECTION
    assert config[superlink.CONNECTION] == {
        "address": f"127.0.0.1:{deployment.config.superlink_port}",
        "root-certificates": str(deployment.file("ca.crt")),
    }


def test_sockets_are_found_by_process_and_told_apart() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as inner,
        socket.create_server(("0.0.0.0", 0)) as outer,
    ):
        ports = [one.getsockname()[1] for one in (inner, outer)]
        assert {("127.0.0.1", ports[0]), ("0.0.0.0", ports[1])} <= superlink.listening_sockets([os.getpid()])
        found = superlink.reachable_sockets([os.getpid()])
        assert f"0.0.0.0:{ports[1]}" in found
        assert f"127.0.0.1:{ports[0]}" not in found
    assert not [one for one in superlink.listening_sockets([os.getpid()]) if one[1] in ports]


@pytest.mark.skipif(sys.byteorder != "little", reason="digits of a little-endian machine")
@pytest.mark.parametrize(
    ("digits", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("0" * 24 + "01000000", "::1"),
        ("0" * 32, "::"),
        ("B80D0120" + "0" * 24, "2001:db8::"),
    ],
)
def test_addresses_are_read_as_the_kernel_writes_them(digits: str, address: str) -> None:
    assert superlink._address(digits) == address


def test_the_neutral_folder_is_empty_and_the_owners(deployment: Deployment) -> None:
    folder = superlink.isolated_environment(deployment)
    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_database_gives_room_back(deployment: Deployment) -> None:
    superlink.compact_database(deployment)  # none yet
    path = superlink.database(deployment)
    assert not path.exists()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE kept (x)")
        connection.execute("CREATE TABLE objects (x)")
        connection.execute("INSERT INTO kept VALUES (7)")
        connection.execute("INSERT INTO objects VALUES (zeroblob(2000000))")
        connection.commit()
        connection.execute("DELETE FROM objects")
        connection.commit()
    before = path.stat().st_size
    superlink.compact_database(deployment)
    assert path.stat().st_size < before - 1_900_000
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT x FROM kept").fetchall() == [(7,)]
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(RunFailed, match="move it away"):
        superlink.compact_database(deployment)


def test_nobody_there_is_not_healthy(deployment: Deployment) -> None:
    assert not superlink.healthy(deployment)


@pytest.mark.parametrize(
    ("answer", "rc", "says"),
    [
        ('{"success": false, "error-message": "[code: 7] not now"}', 1, "not now"),
        ("Traceback: broken", 1, "broken"),
        ('{"nodes": []}', 1, "nodes"),
    ],
)
def test_a_no_of_flwr_is_passed_on(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, answer: str, rc: int, says: str
) -> None:
    done = superlink.subprocess.CompletedProcess([], rc, stdout=answer, stderr="")
    monkeypatch.setattr(superlink.subprocess, "run", lambda *args, **words: done)
    with pytest.raises(RunFailed, match=says):
        superlink.flwr(deployment, "supernode", "list")


def test_the_answer_is_found_behind_other_text(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'Listing all nodes...\n{"success": true, "nodes": [1]}\nbye'
    done = superlink.subprocess.CompletedProcess([], 0, stdout=said, stderr="")
    monkeypatch.setattr(superlink.subprocess, "run", lambda *args, **words: done)
    assert superlink.flwr(deployment, "supernode", "list")["nodes"] == [1]
