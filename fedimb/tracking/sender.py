"""Sends runs to MLflow from a process of its own, so that a command need not wait for it.

Importing MLflow and opening its database takes longer than importing torch and doing a small run. The process is
started before the command imports torch, gets the folders it shall send through its standard input, and reads
everything else from them (`fedimb.tracking.sender_process`). It ends when its input does: at the end of the command, or
when that was killed. Nothing is lost if it is killed itself: `fedimb track sync` sends what MLflow lacks.

This file imports nothing heavy.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fedimb.plain import JsonObject

Call = Literal["warm", "prepare", "start", "send", "finish", "sync"]
_CODE = "import sys; sys.path[:] = sys.argv[1:]; from fedimb.tracking.sender_process import main; sys.exit(main())"
_log = logging.getLogger("fedimb")
_left: "list[subprocess.Popen[bytes]]" = []
"""Processes that still send when their command has ended; kept, or Python would warn of them."""
_POLL_S = 0.02
_WAIT_AFTER_ERROR_S = 1.0


class Sender:
    """The process that sends, as its command sees it. No method raises or waits because of MLflow, save `close`."""

    def __init__(self) -> None:
        """Start it."""
        words = [sys.executable, "-P", "-c", _CODE, *sys.path]
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a pipe of the command's output must not stay open after it
            start_new_session=True,  # Ctrl-C ends the run, whose status is then sent
        )
        self._folders: dict[str, None] = {}  # what it was given, in order
        self._unread = bytearray()
        self._text = b""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)

    def tracker(self, folder: Path, uri: str, experiment: str) -> "SentTracker":
        """A `fedimb.tracking.mlflow.Tracker` of one run; arguments as for `fedimb.tracking.mlflow.MlflowTracker`."""
        return SentTracker(self, {"folder": str(folder.absolute()), "uri": uri, "experiment": experiment})

    def warm(self, uri: str | None) -> None:
        """What is going to be used, so that it is imported meanwhile; None: MLflow's database."""
        self.call("warm", {"uri": uri})

    def prepare(self, uri: str, experiment: str) -> None:
        """As `fedimb.tracking.store.prepare_store`."""
        self.call("prepare", {"uri": uri, "experiment": experiment})

    def sync(self, folder: Path) -> None:
        """As `fedimb.tracking.mlflow.sync`, with a warning in place of an error."""
        self.call("sync", {"folder": str(folder.absolute())})

    def call(self, call: Call, args: JsonObject) -> None:
        """Tell the process; says what it has reported meanwhile."""
        if "folder" in args:
            self._folders[str(args["folder"])] = None
        self._report()
        if call == "send" and self._unread:
            return  # it is behind, and reads all there is when it gets to the line before
        self._unread += (json.dumps({"call": call, **args}) + "\n").encode()
        self._write()

    def _write(self) -> None:
        """Give the process what it has not got yet, as far as it takes it now."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        try:
            while self._unread:
                del self._unread[: os.write(self._process.stdin.fileno(), self._unread)]
        except BlockingIOError:
            _log.debug("the process that sends to MLflow is behind")
        except OSError as error:  # it has ended: `close` says so
            _log.debug("the process that sends to MLflow has ended: %s", error)
            self._unread.clear()

    def close(self, wait_s: float) -> None:
        """Let it finish: waits until everything is sent, at most ``wait_s`` seconds, then says that it still sends."""
        deadline = time.monotonic() + wait_s
        self._write()
        while (code := self._process.poll()) is None and time.monotonic() < deadline:
            self._end_input()
            self._report()
            time.sleep(_POLL_S)
        self._end_input()
        self._report()
        if not self._folders or code == 0:
            return
        folders = list(self._folders)
        later = f"`fedimb track sync {folders[0]}`" + (", and so for other runs," if len(folders) > 1 else "")
        if code is None:
            _left.append(self._process)
            _log.warning("MLflow: still sending in the background; if that is interrupted, %s sends the rest", later)
        else:
            _log.warning("MLflow did not get everything, and nothing is lost: %s sends it", later)

    def _end_input(self) -> None:
        """Close its input once everything is written; what it does not take within the wait stays unsent."""
        self._write()
        if not self._unread and self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _report(self) -> None:
        """Log what the process has reported."""
        if self._process.stdout is not None:
            with contextlib.suppress(BlockingIOError):
                while part := os.read(self._process.stdout.fileno(), 65536):
                    self._text += part
        *lines, self._text = self._text.split(b"\n")
        for line in lines:
            _log.warning("%s", json.loads(line)["warning"])


class SentTracker:
    """One run's tracker (`fedimb.tracking.mlflow.Tracker`): tells a `Sender`."""

    _INTERVAL_S = 10.0  # as between two sends of `fedimb.tracking.mlflow.MlflowTracker`

    def __init__(self, sender: Sender, run: JsonObject) -> None:
        self._sender, self._run = sender, run
        self._last = time.monotonic()

    def start(self) -> None:
        """The run starts or continues; ``rows.json`` is written."""
        self._sender.call("start", self._run)

    def send(self, force: bool = False) -> None:
        """``metrics.jsonl`` has grown and the checkpoint that covers it is on disk."""
        now = time.monotonic()
        if force or now - self._last >= self._INTERVAL_S:
            self._last = now
            self._sender.call("send", self._run)

    def finish(self) -> None:
        """``status.json`` and the artifacts are written."""
        self._sender.call("finish", self._run)


@contextlib.contextmanager
def sender_of(tracking: object, wait_s: float) -> Iterator[Sender | None]:
    """A `Sender` for the block, or None if these settings track nothing.

    Args:
        tracking: the configuration's ``tracking``; need not be validated.
        wait_s: how long the end of the block waits, in seconds.
    """
    settings = tracking if isinstance(tracking, dict) else {}
    if settings.get("name") != "mlflow":
        yield None
        return
    sender = Sender()
    uri = settings.get("uri")
    sender.warm(uri if isinstance(uri, str) else None)
    try:
        yield sender
    except BaseException:
        sender.close(min(wait_s, _WAIT_AFTER_ERROR_S))
        raise
    sender.close(wait_s)
