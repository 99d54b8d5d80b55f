"""The coordinator's servers: SuperLink on loopback, and nginx in front of it, which lets only sites' calls through.

nginx forwards the calls a node makes, by name, and answers 403 to everything else: the Control API (which starts runs
and registers nodes without a login), the Runtime API and the API's pages share the SuperLink's single port. A test
compares `FLEET_CALLS` with the routes of Flower 1.41 (flwr.superlink.routers). Before it reads a call's body, nginx
asks the gate, a process beside it, whether a site signed the call (`fedimb.deploy.coordinator.gate`).
"""

import contextlib
import datetime as dt
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from fedimb.deploy.coordinator import gate, nginx, superlink
from fedimb.deploy.coordinator.deployment import DeployConfig, Deployment
from fedimb.deploy.coordinator.nginx import FLEET_CALLS, nginx_command, nginx_config
from fedimb.deploy.coordinator.registration import reconcile, register_site
from fedimb.deploy.coordinator.standby import refuse_standby
from fedimb.deploy.coordinator.superlink import superlink_command
from fedimb.deploy.files import refuse_readable
from fedimb.deploy.pki import covers, expires, signed_by
from fedimb.engine import processes
from fedimb.errors import ConfigError, RunFailed

__all__ = ["FLEET_CALLS", "Servers", "nginx_command", "nginx_config", "register_site", "superlink_command"]

_START_S = 90.0
_OLD_LOG_BYTES = 10_000_000


class Servers:
    """SuperLink, gate and nginx as a context manager: started on entry, stopped on exit.

    Args:
        deployment: the coordinator's folder.
        extra_env: variables for the SuperLink and the runs it starts.

    Raises:
        ConfigError: on entry, if the folder is a standby's, they already run, a port is in use, or a file is missing or
            readable by others.
        RunFailed: on entry, if one of them does not start.
    """

    def __init__(self, deployment: Deployment, extra_env: dict[str, str] | None = None) -> None:
        self.deployment, self._extra = deployment, extra_env or {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._record = deployment.file("state", "servers.json")
        self.site_lines: list[str] = []
        """After the start: one line per site that was registered or removed, or could not be (see `reconcile`)."""

    def __enter__(self) -> Self:
        refuse_standby(self.deployment)
        _check_files(self.deployment)
        self._clear_leftovers()
        nginx.write_config(self.deployment)
        try:
            self._start_superlink()
            self.site_lines = reconcile(self.deployment)
            self._start_gate()
            self._start_nginx()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ended(self) -> str | None:
        """Which server stopped unexpectedly, with the end of its log; None while both run."""
        for name, process in self._running.items():
            if process.poll() is not None:
                return f"{name} ended (exit {process.returncode}); {self._tail(name)}"
        return None

    def rotate_logs(self) -> None:
        """Keep one old file of each of nginx's logs that has grown large. Call it now and then."""
        nginx.rotate_logs(self.deployment, _OLD_LOG_BYTES)

    def _start_superlink(self) -> None:
        _refuse_taken(superlink.LOOPBACK, self.deployment.config.superlink_port, "superlink_port")
        superlink.compact_database(self.deployment)
        argv, env = superlink_command(self.deployment)
        process = self._start("superlink", argv, env | self._extra, superlink.isolated_environment(self.deployment))
        self._wait("superlink", lambda: superlink.healthy(self.deployment))
        if found := superlink.reachable_sockets([process.pid, *processes.descendants(process.pid)]):
            raise ConfigError(
                f"refused: the SuperLink listens on {', '.join(found)}, and anyone who reaches it can start runs at "
                "every "
                "site; it may listen on 127.0.0.1 only: find out what in this environment makes it listen elsewhere"
            )

    def _start_gate(self) -> None:
        place = self.deployment.file(*gate.SOCKET)
        place.unlink(missing_ok=True)
        argv = [sys.executable, "-P", "-m", gate.__name__, str(self.deployment.root)]
        self._start("gate", argv, dict(os.environ), self.deployment.root)
        self._wait("gate", place.is_socket)

    def _start_nginx(self) -> None:
        host, port = superlink.LOOPBACK, self.deployment.config.port
        _refuse_taken(host if nginx.is_loopback(self.deployment.config.host) else "", port, "port")
        nginx.check_config(self.deployment)
        self._start("nginx", nginx_command(self.deployment), dict(os.environ), self.deployment.root)
        self._wait("nginx", lambda: _shakes_hands(self.deployment))

    def _start(self, name: str, argv: list[str], env: dict[str, str], folder: Path) -> "subprocess.Popen[bytes]":
        log = self.deployment.file("logs", f"{name}.log")
        if log.is_file() and log.stat().st_size > _OLD_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as out:  # own session: Ctrl-C goes only to the process that started both
            process = subprocess.Popen(
                argv, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self._running[name] = process
        self._note()
        return process

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_S
        while not ready():
            if self._running[name].poll() is not None or time.monotonic() > deadline:
                raise RunFailed(f"{name} did not start within {_START_S:.0f} s; {self._tail(name)}")
            time.sleep(0.1)
        self._note()

    def _note(self) -> None:
        """Record the running processes, so that the next start can end leftovers."""
        pids = [pid for one in self._running.values() for pid in (one.pid, *processes.descendants(one.pid))]
        content = {"up": processes.record([os.getpid()]), "servers": processes.record(pids)}
        temporary = self._record.with_suffix(".part")
        temporary.write_text(json.dumps(content))
        temporary.replace(self._record)

    def _clear_leftovers(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            noted = json.loads(self._record.read_text())
            if any(processes.start_time(int(pid)) == start for pid, start in noted["up"].items()):
                raise ConfigError(
                    f"{self.deployment.config.name} is up already (process {', '.join(noted['up'])}): "
                    "fedimb deploy status shows it; end that one first"
                )
            processes.end(noted["servers"])

    def _end(self) -> None:
        for name in ("nginx", "gate", "superlink"):  # sites are cut off before the servers behind are
            if (process := self._running.pop(name, None)) is None:
                continue
            started = processes.record([process.pid, *processes.descendants(process.pid)])
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            processes.end(started)
            process.wait()
        self._record.unlink(missing_ok=True)

    def _tail(self, name: str) -> str:
        log = self.deployment.file("logs", f"{name}.log")
        text = log.read_text(errors="replace")[-1500:].strip() if log.is_file() else ""
        return f"the end of {log}: {text or '(nothing)'}"


def _check_files(deployment: Deployment) -> None:
    for name in ("ca.crt", "server.pem", "server.key"):
        if not deployment.file(name).is_file():
            raise ConfigError(
                f"{deployment.file(name)} does not exist: restore it, or run fedimb deploy renew for server.*"
            )
    refuse_readable(deployment.file("server.key"))
    server, host = deployment.file("server.pem").read_bytes(), deployment.config.host
    if not signed_by(server, deployment.file("ca.crt").read_bytes()):
        raise ConfigError(f"{deployment.file('server.pem')} is not signed by ca.crt: run fedimb deploy renew")
    if not covers(server, host):
        raise ConfigError(f"server.pem is not valid for {host}, the host in deploy.yaml: run fedimb deploy renew")
    if expires(server) < dt.datetime.now(dt.UTC):
        raise ConfigError(f"server.pem expired on {expires(server):%Y-%m-%d}: run fedimb deploy renew")


def _refuse_taken(host: str, port: int, setting: str) -> None:
    try:
        socket.create_server((host, port), reuse_port=False).close()
    except PermissionError:
        raise ConfigError(
            f"port {port} is below 1024 and needs a privilege: start it as the systemd service, or once run "
            "sudo sysctl net.ipv4.ip_unprivileged_port_start=443"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"port {port} cannot be used ({error.strerror}): stop the program that uses it, or change {setting} in "
            "deploy.yaml"
        ) from None


def _shakes_hands(deployment: Deployment) -> bool:
    """Whether nginx shows this deployment's certificate at the public port, over loopback."""
    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    config: DeployConfig = deployment.config
    address = (superlink.LOOPBACK, config.port)
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, timeout=5) as plain,
        trust.wrap_socket(plain, server_hostname="localhost"),
    ):
        return True
    return False
