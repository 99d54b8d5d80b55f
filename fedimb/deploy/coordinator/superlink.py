"""Flower's SuperLink at the coordinator: how it is started, where alone it listens, and how ``flwr`` talks to it.

Whoever reaches a SuperLink's one port can register nodes and submit runs without a login. So it listens on 127.0.0.1
and nowhere else (checked after the start, on its real sockets), and inherits no Flower setting from the environment:
two of those open further ports on every address. Source: Flower 1.41 (flwr.superlink.cli.flower_superlink).
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
from fedimb.deploy.process_env import DROPPED, SWITCHES
from fedimb.errors import RunFailed
from fedimb.plain import JsonObject
from fedimb.process_env import QUIET

LOOPBACK = "127.0.0.1"
CONNECTION = "fedimb"
"""The name of the connection in Flower's config.toml: the last word of ``flwr run APP fedimb``."""

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


def flower_env(deployment: Deployment) -> dict[str, str]:
    """The environment of every Flower process here: this one's, without any Flower setting of its own.

    Also writes Flower's config.toml, so that ``flwr ... fedimb`` finds the SuperLink.
    """
    home, port = deployment.folder("flwr"), deployment.config.superlink_port
    ca = json.dumps(str(deployment.file("ca.crt")), ensure_ascii=False)  # a JSON string is a TOML string
    text = f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
    text += f'address = "{LOOPBACK}:{port}"\nroot-certificates = {ca}\n'
    config = home / "config.toml"
    if not config.is_file() or config.read_text("utf-8") != text:
        config.write_text(text, encoding="utf-8")
    kept = {key: value for key, value in os.environ.items() if key not in DROPPED and not key.startswith("FLWR_")}
    direct = ",".join(filter(None, [LOOPBACK, "localhost", kept.get("NO_PROXY") or kept.get("no_proxy", "")]))
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    own = {"FLWR_HOME": str(home), "NO_PROXY": direct, "no_proxy": direct, "PATH": path}
    return QUIET | kept | SWITCHES | own


def superlink_command(deployment: Deployment) -> tuple[list[str], dict[str, str]]:
    """(command line, environment) of the SuperLink; to be run in `neutral`.

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
    """SuperLink's database: sites, runs, and the messages under way."""
    return deployment.folder("state") / "superlink.db"


def compact(deployment: Deployment) -> None:
    """Give back the room that finished runs left in the database. Only while no SuperLink has it open.

    Flower deletes a run's models and updates from its tables when the run ends; the file keeps its size.

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
            f"{path}: {error}. If another program has it open, end that one; if it is damaged, move it away: sites are "
            "registered again at the next start, finished runs are in their run folders"
        ) from None


def isolated_environment(deployment: Deployment) -> Path:
    """An empty working folder: Flower's processes import from theirs before they look at what is installed."""
    return deployment.folder("state", "neutral")


def healthy(deployment: Deployment) -> bool:
    """Whether this deployment's SuperLink answers: another program on the port cannot show our certificate."""
    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    url = f"https://{LOOPBACK}:{deployment.config.superlink_port}/health"
    with contextlib.suppress(OSError), opener.open(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def flwr(deployment: Deployment, *words: str) -> JsonObject:
    """What the ``flwr`` command answers about this deployment's SuperLink, from its JSON.

    Raises:
        RunFailed: it said no; with what it said.
    """
    argv = [str(Path(sys.executable).parent / "flwr"), *words, "--format", "json"]
    env, folder = flower_env(deployment), isolated_environment(deployment)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env=env, cwd=folder)
    said = done.stdout + done.stderr
    with contextlib.suppress(ValueError):  # other text may stand before the JSON
        answer: JsonObject = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("{"))[0]
        if done.returncode == 0 and answer.get("success", True):
            return answer
        said = str(answer.get("error-message", said))
    raise RunFailed(f"flwr {' '.join(words[:2])} said: {' '.join(said.split())[-600:]}")


def listening(pids: list[int]) -> set[tuple[str, int]]:
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
    """An address as /proc/net writes it: 32-bit words in the machine's byte order."""
    words = [bytes.fromhex(digits[i : i + 8]) for i in range(0, len(digits), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return str(ipaddress.ip_address(packed))


def reachable(pids: list[int]) -> list[str]:
    """``address:port`` of every socket of these processes that another machine could reach, sorted."""
    ours = sorted(listening(pids))
    return [f"{address}:{port}" for address, port in ours if not ipaddress.ip_address(address).is_loopback]
