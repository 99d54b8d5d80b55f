"""Flower's SuperLink at the coordinator: how it is started, where it listens, and how ``flwr`` talks to it.

Anyone who reaches a SuperLink's port can register nodes and submit runs without a login. So it listens on 127.0.0.1
only (checked after the start, on its real sockets) and inherits no Flower settings from the environment: two of them
open more ports on every address. See Flower 1.41, flwr.superlink.cli.flower_superlink.
"""

import contextlib
import ipaddress
import json
import os
import sqlite3
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.process_env import DROPPED_VARIABLES, PROCESS_ENV
from fedimb.errors import RunFailed
from fedimb.plain import JsonObject
from fedimb.process_env import QUIET

LOOPBACK = "127.0.0.1"
CONNECTION = "fedimb"
"""The name of the connection in Flower's config.toml: the last word of ``flwr run APP fedimb``."""

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


def flower_env(deployment: Deployment) -> dict[str, str]:
    """The environment of every Flower process here: this process's, without its Flower settings.

    Also writes Flower's config.toml, so that ``flwr ... fedimb`` finds the SuperLink.
    """
    home, port = deployment.folder("flwr"), deployment.config.superlink_port
    ca = json.dumps(str(deployment.file("ca.crt")), ensure_ascii=False)  # a JSON string is a TOML string
    text = f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
    text += f'address = "{LOOPBACK}:{port}"\nroot-certificates = {ca}\n'
    config = home / "config.toml"
    if not config.is_file() or config.read_text("utf-8") != text:
        config.write_text(text, encoding="utf-8")
    kept = {
        key: value for key, value in os.environ.items() if key not in DROPPED_VARIABLES and not key.startswith("FLWR_")
    }
    direct = ",".join(filter(None, [LOOPBACK, "localhost", kept.get("NO_PROXY") or kept.get("no_proxy", "")]))
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    own = {"FLWR_HOME": str(home), "NO_PROXY": direct, "no_proxy": direct, "PATH": path}
    return QUIET | kept | PROCESS_ENV | own


def superlink_command(deployment: Deployment) -> tuple[list[str], dict[str, str]]:
    """(command line, environment) of the SuperLink; run it in `isolated_environment`.

    It starts its helpers by name, so the environment's PATH begins with the folder of this Python.
    """
    argv = [
        *(str(Path(sys.executable).parent / "flower-superlink"), "--host", LOOPBACK),
        *("--port", str(deployment.config.superlink_port), "--enable-supernode-auth"),
        *("--ssl-ca-certfile", str(deployment.file("ca.crt"))),
        *("--ssl-certfile", str(deployment.file("server.pem"))),
        *("--ssl-keyfile", str(deployment.file("server.key"))),
        *("--database", str(database(deployment))),
        "--disable-runtime-dependency-installation",
    ]
    return argv, flower_env(deployment)


def database(deployment: Deployment) -> Path:
    """SuperLink's database: sites, runs, and pending messages."""
    return deployment.folder("state") / "superlink.db"


def compact_database(deployment: Deployment) -> None:
    """Shrink the database after finished runs. Call only while no SuperLink has it open.

    Flower deletes a run's models and updates from its tables when the run ends, but the file keeps its size.

    Raises:
        RunFailed: the file is damaged or in use.
    """
    path = database(deployment)
    if not path.is_file():
        return
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        raise RunFailed(
            f"{path}: {error}: if another program has it open, stop that program; if it is damaged, move it away: "
            "sites are "
            "registered again at the next start, and finished runs are in their run folders"
        ) from None


def isolated_environment(deployment: Deployment) -> Path:
    """An empty working folder: Flower's processes import from their working folder before installed packages."""
    return deployment.folder("state", "neutral")


def healthy(deployment: Deployment) -> bool:
    """Whether this deployment's SuperLink responds; another program on the port cannot show its certificate."""
    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    url = f"https://{LOOPBACK}:{deployment.config.superlink_port}/health"
    with contextlib.suppress(OSError), opener.open(url, timeout=5) as response:
        return bool(response.status == 200)
    return False


def flwr(deployment: Deployment, *words: str) -> JsonObject:
    """Run a ``flwr`` command on this deployment's SuperLink and return its JSON output.

    Raises:
        RunFailed: the command failed; the text contains its output.
    """
    argv = [str(Path(sys.executable).parent / "flwr"), *words, "--format", "json"]
    env, folder = flower_env(deployment), isolated_environment(deployment)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env=env, cwd=folder)
    output = done.stdout + done.stderr
    with contextlib.suppress(ValueError):  # other text may precede the JSON
        reply: JsonObject = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("{"))[0]
        if done.returncode == 0 and reply.get("success", True):
            return reply
        output = str(reply.get("error-message", output))
    raise RunFailed(f"flwr {' '.join(words[:2])} failed: {' '.join(output.split())[-600:]}")


def listening_sockets(pids: list[int]) -> set[tuple[str, int]]:
    """(address, port) of every TCP socket on which these processes listen. Linux (/proc); elsewhere empty."""
    inodes: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(link))
    found: set[tuple[str, int]] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTEN and f"socket:[{words[9]}]" in inodes:
                    address, _, port = words[1].partition(":")
                    found.add((_address(address), int(port, 16)))
    return found


def _address(digits: str) -> str:
    """Parse an address as /proc/net writes it: 32-bit words in the machine's byte order."""
    words = [bytes.fromhex(digits[i : i + 8]) for i in range(0, len(digits), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return str(ipaddress.ip_address(packed))


def reachable_sockets(pids: list[int]) -> list[str]:
    """``address:port`` of every socket of these processes that another machine could reach, sorted."""
    ours = sorted(listening_sockets(pids))
    return [f"{address}:{port}" for address, port in ours if not ipaddress.ip_address(address).is_loopback]
