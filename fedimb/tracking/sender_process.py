"""The process that `fedimb.tracking.sender` starts: does its calls, one after another, until its input ends."""

import json
import logging
import os
import sys
from pathlib import Path

from fedimb import process_env, process_state
from fedimb.errors import FedimbError
from fedimb.plain import JsonObject
from fedimb.tracking.mlflow import MlflowTracker, prepare_store, sync
from fedimb.tracking.store import preload

_reports = 1
"""File descriptor of reports; standard output until `main` sets libraries' prints apart from them."""
_NICE = 5  # the run itself has priority on a machine whose cores are all busy


class _Reports(logging.Handler):
    """Writes warnings to standard output, one JSON object per line, as long as somebody reads them."""

    def emit(self, record: logging.LogRecord) -> None:
        report(record.getMessage())


def report(warning: str) -> None:
    """Tell the command, unless it has ended."""
    try:
        os.write(_reports, (json.dumps({"warning": warning}) + "\n").encode())
    except OSError as error:  # nobody listens any more; `fedimb track sync` says it again
        logging.getLogger(__name__).debug("%s: %s", error, warning)


class Calls:
    """Does the calls of one command."""

    def __init__(self) -> None:
        self._trackers: dict[str, MlflowTracker] = {}
        self._finished: set[str] = set()

    def do(self, call: JsonObject) -> None:
        """Do one call; errors become reports."""
        name = call["call"]
        try:
            if name == "warm":
                preload(call["uri"])
            elif name == "prepare":
                prepare_store(call["uri"], call["experiment"])
            elif name == "sync":
                sync(call["folder"])
            else:
                self._track(str(name), call)
        except FedimbError as error:
            report(f"{error}; `fedimb track sync` sends it later" if name == "prepare" else str(error))

    def _track(self, name: str, call: JsonObject) -> None:
        folder = str(call["folder"])
        if folder not in self._trackers:
            self._trackers[folder] = MlflowTracker(Path(folder), call["uri"], call["experiment"])
        tracker = self._trackers[folder]
        if name == "start":
            self._finished.discard(folder)
            tracker.start()
        elif name == "send":
            tracker.send(force=True)
        else:
            self._finished.add(folder)
            tracker.finish()

    def end(self) -> None:
        """The command has ended: send what is there of runs that it did not finish, because it was killed."""
        for folder, tracker in self._trackers.items():
            if folder not in self._finished:
                tracker.finish()


def _set_prints_apart() -> None:
    """What a library prints goes nowhere: the command takes every line of the process for a report."""
    global _reports
    _reports = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)


def main() -> int:
    """The process. Returns its exit code: 1 if something unexpected ended it, which is reported."""
    process_env.set_defaults()
    process_state.collect_seldom()
    os.nice(_NICE)
    _set_prints_apart()
    logging.getLogger("fedimb").addHandler(_Reports(level=logging.WARNING))
    calls = Calls()
    try:
        for line in sys.stdin:
            calls.do(json.loads(line))
        calls.end()
    except Exception as error:
        report(f"the process that sends to MLflow failed: {type(error).__name__}: {error}")
        return 1
    return 0
