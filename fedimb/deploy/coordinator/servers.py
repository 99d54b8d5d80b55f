"""The coordinator's two servers: SuperLink on loopback, and nginx in front of it, which lets only sites' calls through.

nginx forwards the calls a node makes, by name, and answers 403 to everything else: the Control API (which starts runs
and registers nodes without a login), the Runtime API and the API's pages share the SuperLink's single port. A test
compares `FLEET_CALLS` with the routes of Flower 1.41 (flwr.superlink.routers).
"""

import contextlib
import datetime as dt
import ipaddress
import json
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from fedimb.deploy import units
from fedimb.deploy.coordinator import superlink
from fedimb.deploy.coordinator.deployment import DeployConfig, Deployment
from fedimb.deploy.coordinator.registration import reconcile, register_site
from fedimb.deploy.coordinator.superlink import superlink_command
from fedimb.deploy.files import refuse_readable
from fedimb.deploy.pki import covers, expires, signed_by
from fedimb.engine import processes
from fedimb.errors import ConfigError, RunFailed

__all__ = ["FLEET_CALLS", "Servers", "nginx_command", "nginx_config", "register_site", "superlink_command"]

FLEET_CALLS = (
    *("activate-node", "deactivate-node", "send-node-heartbeat"),
    *("pull-messages", "push-messages", "confirm-message-received"),
    *("get-run", "get-fab", "push-object", "pull-object"),
)
"""The calls a registered node makes. register-node and unregister-node are reserved for the coordinator."""

_START_S = 90.0
_OLD_LOG_BYTES = 10_000_000


def nginx_config(deployment: Deployment) -> str:
    """nginx.conf of this deployment.

    It listens on loopback only if the host name is loopback, else on every address.
    """
    config = deployment.config
    listen = f"{superlink.LOOPBACK}:{config.port}" if _is_loopback(config.host) else str(config.port)
    port = config.superlink_port
    return units.render("nginx.conf.tmpl", listen=listen, calls="|".join(FLEET_CALLS), superlink_port=port)


def nginx_command(deployment: Deployment, *words: str) -> list[str]:
    """nginx's command line, run unprivileged in the deployment's folder.

    Raises ConfigError if nginx is not installed.
    """
    # Debian keeps it where an ordinary user's PATH does not look.
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise ConfigError(
            "nginx is not installed: run sudo apt-get install nginx && sudo systemctl disable --now nginx "
            "(only the program is needed; fedimb runs it from the deployment's folder)"
        )
    as_root = ["-g", f"user {pwd.getpwuid(0).pw_name};"] if os.geteuid() == 0 else []
    return [found, "-p", f"{deployment.root}/", "-e", "logs/nginx-error.log", "-c", "nginx.conf", *as_root, *words]


class Servers:
    """SuperLink and nginx as a context manager: started on entry, stopped on exit.

    Args:
        deployment: the coordinator's folder.
        extra_env: variables for the SuperLink and the runs it starts.

    Raises:
        ConfigError: on entry, if they already run, a port is in use, or a file is missing or readable by others.
        RunFailed: on entry, if one of them does not start.
    """

    def __init__(self, deployment: Deployment, extra_env: dict[str, str] | None = None) -> None:
        self.deployment, self._extra = deployment, extra_env or {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._record = deployment.file("state", "servers.json")
        self.site_lines: list[str] = []
        """After the start: one line per site that was registered or removed, or could not be (see `reconcile`)."""

    def __enter__(self) -> Self:
        _check_files(self.deployment)
        self._clear_leftovers()
        for name in ("logs", "state/nginx"):
            self.deployment.folder(*name.split("/"))
        self.deployment.file("nginx.conf").write_text(nginx_config(self.deployment), encoding="utf-8")
        try:
            self._start_superlink()
            self.site_lines = reconcile(self.deployment)
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

    def _start_nginx(self) -> None:
        host, port = superlink.LOOPBACK, self.deployment.config.port
        _refuse_taken(host if _is_loopback(self.deployment.config.host) else "", port, "port")
        checked = subprocess.run(nginx_command(self.deployment, "-t", "-q"), capture_output=True, text=True, timeout=60)
        if checked.returncode:
            raise RunFailed(f"nginx refuses nginx.conf: {' '.join(checked.stderr.split())}")
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
        for name in ("nginx", "superlink"):  # sites are cut off before the server behind is
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


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host == "localhost"


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
