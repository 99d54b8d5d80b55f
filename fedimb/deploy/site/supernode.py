"""Flower's SuperNode as a node runs it: command, environment, and the process itself.

This module sets everything a safe SuperNode needs: the guard first on PATH and no other folder with Flower's own
programs, no telemetry, no update check, no installation of dependencies, a separate Flower folder, an empty working
directory, and no proxy for loopback, over which Flower's parts talk to each other at the node.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fedimb.deploy.files import refuse_readable
from fedimb.deploy.home import NODE_HOME, NodeConfig, NodeHome
from fedimb.deploy.pki import check_ca
from fedimb.deploy.process_env import DROPPED_VARIABLES, PROCESS_ENV
from fedimb.deploy.site.guard import PROGRAMS, write_shims
from fedimb.deploy.site.limits import apply_limits, thread_variables
from fedimb.deploy.site.status import read_json
from fedimb.engine.processes import start_time
from fedimb.errors import ConfigError
from fedimb.process_env import QUIET

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SUPERVISOR = "FEDIMB_SUPERVISOR"
"""Environment variable: process id of the supervisor. If it is set, the SuperNode runs only under that process."""
RECORD = ("flwr", "supernode.json")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def supernode_command(home: NodeHome, port: int | None = None) -> tuple[list[str], dict[str, str]]:
    """How to start this node's SuperNode: command line and complete environment. Run it in `isolated_environment`.

    Args:
        home: the node's folder.
        port: port of Flower's runtime on 127.0.0.1 (default: a free one).

    Raises:
        ConfigError: node.yaml names no coordinator, the key is missing or readable by others, the authority is not the
            confirmed one, ca_bundle does not exist, or proxy is not an address.
    """
    config = home.config
    if config.coordinator is None:
        raise ConfigError(f"{home.file('node.yaml')} does not name a coordinator: give host, port and ca_fingerprint")
    key = home.file("key")
    if not key.is_file():
        raise ConfigError(f"{key} does not exist: fedimb node init makes it once, at the site")
    refuse_readable(key)
    host = f"[{config.coordinator.host}]" if ":" in config.coordinator.host else config.coordinator.host
    words = [sys.executable, "-P", "-m", "fedimb.deploy.site.supernode"]
    words += ["--superlink", f"{host}:{config.coordinator.port}", "--root-certificates", str(trusted_roots(home))]
    words += ["--auth-supernode-private-key", str(key), "--host", "127.0.0.1", "--port", str(port or _free_port())]
    words += ["--node-config", f'site="{home.site}"']
    return words, node_environment(home, os.environ)


def isolated_environment(home: NodeHome) -> Path:
    """An empty folder to start in, because Python and Flower import from their working directory."""
    return home.folder("flwr", "neutral")


def node_environment(home: NodeHome, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of every process of a node.

    Args:
        home: the node's folder.
        given: the environment the node was started in; its proxies and NO_PROXY apply unless node.yaml sets a proxy.
    """
    kept = {
        name: value for name, value in given.items() if name not in DROPPED_VARIABLES and not name.startswith("FLWR_")
    }
    own = {NODE_HOME: str(home.root), "FLWR_HOME": str(home.folder("flwr")), "PATH": guarded_path(home, given)}
    own["FEDIMB_CACHE_DIR"] = str(
        home.folder("cache", "made")
    )  # also for generators and samples, so that a withdrawal can empty it
    given_here = proxy_variables(home.config, given) | thread_variables(home.config.limits)
    return QUIET | kept | PROCESS_ENV | given_here | own


def guarded_path(home: NodeHome, given: Mapping[str, str]) -> str:
    """PATH with the guard first, and without folders that contain programs the guard replaces.

    So nothing unguarded can start, even if the guard's own files cannot be executed.
    """
    folders = [folder for folder in given.get("PATH", os.defpath).split(os.pathsep) if Path(folder).is_absolute()]
    clean = [folder for folder in folders if not any(Path(folder, program).exists() for program in PROGRAMS)]
    return os.pathsep.join([str(write_shims(home)), *clean])


def proxy_variables(config: NodeConfig, given: Mapping[str, str]) -> dict[str, str]:
    """Variables for the proxy of node.yaml, in both spellings, and NO_PROXY with loopback.

    With a proxy but without NO_PROXY, a node's calls to itself would go to the proxy too, and it would hang.

    Raises:
        ConfigError: ``proxy:`` is not an http:// or https:// address.
    """
    found = {}
    if config.proxy is not None:
        parts = urlsplit(config.proxy)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            shown = parts.hostname or "the value"  # the whole address may hold a password
            raise ConfigError(f"node.yaml: proxy: {shown} is not a proxy address: write http://proxy.example:3128")
        found = {spelling: config.proxy for name in _PROXIES for spelling in (name, name.lower())}
    direct = [entry for name in ("NO_PROXY", "no_proxy") for entry in given.get(name, "").split(",")]
    everything = ",".join(dict.fromkeys([*LOOPBACK, *(entry.strip() for entry in direct if entry.strip())]))
    return found | {"NO_PROXY": everything, "no_proxy": everything}


def trusted_roots(home: NodeHome) -> Path:
    """File with the certificate authorities this node trusts: the coordinator's, then those of ``ca_bundle:``.

    Raises:
        ConfigError: ca.crt is not the authority whose fingerprint was confirmed, or ca_bundle is not a file of
            certificates.
    """
    own = home.file("ca.crt")
    if not own.is_file():
        raise ConfigError(f"{own} does not exist: get it from the coordinator; fedimb node init puts it there")
    if home.config.coordinator is not None:
        check_ca(own.read_bytes(), home.config.coordinator.ca_fingerprint, str(own))
    if home.config.ca_bundle is None:
        return own
    more = home.root / Path(home.config.ca_bundle).expanduser()
    if not more.is_file() or b"BEGIN CERTIFICATE" not in more.read_bytes():
        raise ConfigError(f"node.yaml: ca_bundle: {more} does not contain certificates (PEM)")
    both = home.folder("flwr") / "roots.pem"
    both.write_bytes(own.read_bytes().rstrip() + b"\n" + more.read_bytes())
    return both


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def recorded_process(home: NodeHome) -> dict[str, str]:
    """``{pid: start time}`` of the SuperNode that was last started from this folder; empty if there was none."""
    return {pid: str(start) for pid, start in (read_json(home.file(*RECORD)) or {}).items()}


def _record_self(home: NodeHome) -> None:
    path = home.folder("flwr") / RECORD[-1]
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({str(os.getpid()): start_time(os.getpid())}))
    temporary.replace(path)


def main(words: Sequence[str]) -> None:
    """Entry point of the SuperNode's process: record it, apply limits, then run Flower's own program."""
    home = NodeHome.open()
    _record_self(home)  # before checking the parent: anyone who ends the parent later finds this record
    watcher = os.environ.get(SUPERVISOR)
    if watcher is not None and os.getppid() != int(watcher):
        raise SystemExit(f"the supervisor (process {watcher}) is gone: the SuperNode was not started")
    for line in apply_limits(home.config.limits):
        print(f"limits: {line}", flush=True)
    from flwr.supernode.cli import flower_supernode

    sys.argv = ["flower-supernode", *words]
    flower_supernode()


if __name__ == "__main__":
    main(sys.argv[1:])
