"""A coordinator's real servers, nodes under real supervisors, and runs without fedimb's loop, on loopback."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from coordinator import make_deployment, make_node

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.registration import register_site
from fedimb.deploy.coordinator.sites import add_site
from fedimb.deploy.coordinator.superlink import CONNECTION, flwr
from fedimb.deploy.home import NodeHome
from fedimb.deploy.joining import read_join
from fedimb.deploy.site.node_process import Timings
from fedimb.deploy.site.status import Status, read_status
from fedimb.deploy.site.supervisor import Supervisor
from fedimb.errors import ConfigError

QUICK = Timings(check_s=0.1, write_s=0.5, observe_s=2.0)

SERVER = '''
import json, os, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    """Ask every node one thing, and write down what each said."""
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.2)
    about = RecordDict({"x.run": ConfigRecord({"run-dir": "nowhere", "cfg-json": "{}"})})
    said = []
    for reply in grid.send_and_receive([Message(about, node, "query.join") for node in nodes], timeout=120):
        error = reply.error if reply.has_error() else None
        text = str(reply.content) if error is None else error.reason
        said.append({"code": None if error is None else error.code, "text": text})
    with open(os.environ["FEDIMB_TEST_SAID"], "w") as file:
        json.dump(said, file)
'''

FOREIGN_CLIENT = """
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
with open("{target}", "w") as proof:
    proof.write(open("/etc/hostname").read())


@app.query("join")
def join(message, context):
    return Message(RecordDict({{"x": ConfigRecord({{"read": open("/etc/hostname").read()}})}}), reply_to=message)
"""

# Flower imports fedimb.deploy.coordinator.app where a run begins; here it finds the lines above instead of fedimb's
# loop.
_SHADOW = """
import importlib.util, os, sys

class Shadow:
    def find_spec(self, name, path=None, target=None):
        if name == "fedimb.deploy.coordinator.app":
            return importlib.util.spec_from_file_location(name, os.environ["FEDIMB_TEST_SERVER"])

sys.meta_path.insert(0, Shadow())
"""


def shadow(folder: Path) -> dict[str, str]:
    """Variables for the SuperLink: its ServerApp is `SERVER`, which writes what it was told to ``folder``/said.json."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SHADOW)
    (folder / "server.py").write_text(SERVER)
    own = {"FEDIMB_TEST_SERVER": str(folder / "server.py"), "FEDIMB_TEST_SAID": str(folder / "said.json")}
    return own | {"PYTHONPATH": str(folder)}


def foreign_app(folder: Path, target: Path) -> Path:
    """An app whose client reads a file outside any data path, and leaves a proof at ``target`` that it was imported."""
    (folder / "evil").mkdir(parents=True)
    (folder / "evil" / "__init__.py").write_text("")
    (folder / "evil" / "server.py").write_text(SERVER)
    (folder / "evil" / "client.py").write_text(FOREIGN_CLIENT.format(target=target))
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "evil"\nversion = "1.0.0"\ndescription = ""\nlicense = "Apache-2.0"\ndependencies = []\n'
        '[tool.flwr.app]\npublisher = "evil"\n[tool.flwr.app.components]\nserverapp = "evil.server:app"\n'
        'clientapp = "evil.client:app"\n[tool.flwr.app.config]\n'
    )
    return folder


def submitted(deployment: Deployment, app: Path, said: Path, patience_s: float = 150.0) -> list[dict[str, object]]:
    """Run an app to its end; what the nodes answered."""
    said.unlink(missing_ok=True)
    run_id = str(flwr(deployment, "run", str(app), CONNECTION)["run-id"])
    deadline = time.monotonic() + patience_s
    status = ""
    while not status.startswith("finished"):
        assert time.monotonic() < deadline, f"the run is still {status}"
        time.sleep(1)
        (run,) = flwr(deployment, "list", CONNECTION, "--run-id", run_id)["runs"]
        status = str(run["status"])
    assert said.is_file(), f"{run}: {(deployment.file('logs') / 'superlink.log').read_text()[-3000:]}"
    answers: list[dict[str, object]] = json.loads(said.read_text())
    return answers


def joined_node(deployment: Deployment, root: Path, known: bool = True) -> NodeHome:
    """A node's folder; its site registered with the running SuperLink if ``known``."""
    make_node(deployment, root)
    home = NodeHome.open(root)
    if known:
        add_site(deployment, read_join(root / f"{home.site}.join.json"))
        register_site(deployment, home.site)
    return home


@contextlib.contextmanager
def watched(home: NodeHome, timings: Timings = QUICK) -> Iterator[Supervisor]:
    """The node runs, under a supervisor in this process."""
    supervisor = Supervisor(home, timings)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join(40)
        assert not thread.is_alive()


def wait_for(home: NodeHome, true: Callable[[Status], object], seconds: float) -> Status:
    """The node's status once it is as said; fails after ``seconds``, with the status and the node's log."""
    deadline, found = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        with contextlib.suppress(ConfigError):
            found = read_status(home)
            if true(found):
                return found
        time.sleep(0.1)
    log = home.file("logs", "supernode.log")
    raise AssertionError(f"{found}\n{log.read_text()[-3000:] if log.exists() else 'no log'}")


def connected(status: Status) -> bool:
    """Whether the coordinator has let the node in."""
    return status.connected is not None and status.state == "running"


@contextlib.contextmanager
def forwarded(listen: tuple[str, int], to: tuple[str, int]) -> Iterator[None]:
    """Bytes from one address to another, as a process of its own."""
    script = (
        "import asyncio\n"
        "async def pipe(a, b):\n"
        "    while data := await a.read(65536):\n"
        "        b.write(data); await b.drain()\n"
        "    b.close()\n"
        "async def one(r, w):\n"
        f"    r2, w2 = await asyncio.open_connection{to!r}\n"
        "    await asyncio.gather(pipe(r, w2), pipe(r2, w), return_exceptions=True)\n"
        "async def main():\n"
        f"    server = await asyncio.start_server(one, *{listen!r})\n"
        "    await server.serve_forever()\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(listen, 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


__all__ = ["connected", "foreign_app", "forwarded", "joined_node", "make_deployment", "shadow", "submitted", "watched"]
