"""``fedimb ui``: serves MLflow's pages for the runs of this folder, on this machine only, until Ctrl-C."""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR
from fedimb.errors import ConfigError, FedimbError

if TYPE_CHECKING:
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Serve MLflow's charts of the runs below --output-dir. The server listens on this machine only, sends nothing anywhere,
and stops with Ctrl-C.

  fedimb ui                          the newest study's charts, by row and setting, on port 5000
  fedimb ui --port 5050              another port, if 5000 is taken
  fedimb ui --output-dir results     runs made with output_dir=results
  fedimb ui --uri sqlite:///a.db     another database (tracking.uri of the run)"""

HOST = "127.0.0.1"
_SERVER_ENV = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for evaluations of language models
    "MLFLOW_ENABLE_AI_GATEWAY": "false",  # which sends to providers of language models
    "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
}
_START_S = 120.0  # about 10 s on an idle machine
_END_S = 5.0
_STUDIES = 10


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    ui = verbs.add_parser("ui", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    ui.add_argument("--port", type=int, default=5000, metavar="N", help="port (default 5000)")
    ui.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")
    ui.add_argument("--uri", metavar="URI", help="MLflow database or server (default: mlflow.db in --output-dir)")
    ui.set_defaults(handler=ui_command)


def ui_command(args: argparse.Namespace) -> int:
    """``fedimb ui``. Returns 0 when stopped by Ctrl-C.

    Raises:
        ConfigError: port out of range.
        FedimbError: no store yet, MLflow is not installed, the port is taken, or the server did not start.
    """
    from fedimb.tracking.store import resolve_uri, shown, sqlite_path

    if not 1 <= args.port <= 65535:
        raise ConfigError(f"--port {args.port}: give a number from 1 to 65535")
    uri = resolve_uri(args.uri, args.output_dir)
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise FedimbError(
            f"no MLflow store at {path} yet: `fedimb run` creates it (unless tracking=none); "
            "for runs in another folder give --output-dir"
        )
    if find_spec("mlflow") is None:
        raise FedimbError("MLflow is not installed here: pip install 'fedimb[sim]'")
    if uri.startswith(("http://", "https://")):
        print(f"{shown(uri)} is already running:")
        _print_links(uri, args.output_dir, args.port)
        return 0
    _check_free(args.port)
    if not _without_assistant():
        print(
            "MLflow's assistant, which can run commands on this machine, is open to its other users: install fedimb "
            "again (pip install) to serve the pages without it",
            file=sys.stderr,
        )
    return _serve(command(uri, args.port, path), uri, args)


def command(uri: str, port: int, path: Path | None) -> list[str]:
    """The server's command line. Artifacts are served from the folder next to the database, the assistant is not."""
    from fedimb.tracking.server_app import NAME

    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    if path is not None:
        words += ["--artifacts-destination", (path.parent / "mlartifacts").as_uri()]
    if _without_assistant():
        words += ["--app-name", NAME]
    return [*words, "--host", HOST, "--port", str(port), "--workers", "1"]


def _without_assistant() -> bool:
    """Whether MLflow finds `fedimb.tracking.server_app`: an installation of before it has no such entry point."""
    from fedimb.tracking.server_app import NAME

    return any(point.name == NAME for point in entry_points(group="mlflow.app"))


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, after one that just ended
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise FedimbError(
                f"port {port} cannot be used ({error.strerror}); give another: --port {port + 1}"
            ) from None


def _serve(words: Sequence[str], uri: str, args: argparse.Namespace) -> int:
    """Run the server until it ends or the user stops it, then end all of its processes."""
    print("starting MLflow (a few seconds) ...", file=sys.stderr, flush=True)
    env = _SERVER_ENV | os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with _interruptible():
        # In a new session, so that Ctrl-C reaches only this process, which then ends all of the server's processes.
        child = subprocess.Popen(words, env=env, start_new_session=True)
        try:
            _wait_until_it_answers(child, args.port)
            _print_links(uri, args.output_dir, args.port)
            print("stop with Ctrl-C", flush=True)
            code = child.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _end(child)
    raise FedimbError(f"MLflow's server stopped with exit code {code}; its output is above")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM as Ctrl-C, so that a closed terminal or a supervisor leaves no server behind."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    except ValueError:  # not the main thread: whoever embeds this handles signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_it_answers(child: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if (code := child.poll()) is not None:
            raise FedimbError(f"MLflow's server did not start (exit code {code}); what it said is above")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.1)
    raise FedimbError(f"MLflow's server did not answer within {_START_S:.0f} s; is the machine overloaded?")


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End the server's whole process group, politely first."""
    for number, patience in ((signal.SIGTERM, _END_S), (signal.SIGKILL, _END_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=patience)
        deadline = time.monotonic() + patience
        while _group_lives(child.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not _group_lives(child.pid):
            return


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # only others' processes carry the number by now
        return False
    return True


def _print_links(uri: str, output_dir: str, port: int) -> None:
    """The address of each study's charts, the newest first; the front page when no run was tracked there."""
    from fedimb.tracking.store import PORT, charts_link

    studies = experiments(output_dir, uri)[:_STUDIES]
    for name in studies or [""]:
        url = charts_link(uri, name)[1].replace(f"//localhost:{PORT}/", f"//{HOST}:{port}/", 1)
        print(f"{name or 'MLflow'}: {url}", flush=True)


def experiments(output_dir: str, uri: str) -> list[str]:
    """Experiments that runs below ``output_dir`` were tracked under in this store, the newest first."""
    from fedimb.cli.find import run_folders
    from fedimb.tracking.state import STATE_FILE, load

    newest: dict[str, float] = {}
    for folder in run_folders(output_dir):
        state = load(folder)
        if state is not None and state.uri == uri:
            changed = (folder / STATE_FILE).stat().st_mtime
            newest[state.experiment] = max(changed, newest.get(state.experiment, 0.0))
    return sorted(newest, key=lambda name: -newest[name])
