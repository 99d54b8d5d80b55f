"""One SuperNode process: what its log says, why it ended, how to end it. Texts of Flower 1.41."""

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from fedimb.engine.processes import descendants, end, record, start_time

_CONNECTED = re.compile(r"SuperNode ID: \d+")
_EXIT = re.compile(r"Exit Code: (\d+)")
_NOT_LET_IN = 305  # ExitCode.SUPERNODE_CONNECTION_ERROR


@dataclass(frozen=True)
class Patience:
    """How long a supervisor waits, in seconds.

    Attributes:
        restart_s: from a death to the next start; the coordinator needs up to 60 to notice a death.
        again_s: from a process that ended by itself, and so told the coordinator, to the next.
        most_s: the most, however often it failed in a row.
        steady_s: how long a process must have run for its death to count as the first again.
        stop_s: for a process to end when asked, before it is killed.
        look_s: between two looks at the process.
        write_s: between two writes of the status.
        observe_s: between two looks at disk, inbox and coordinator.
    """

    restart_s: float = 65.0
    again_s: float = 5.0
    most_s: float = 900.0
    steady_s: float = 300.0
    stop_s: float = 20.0
    look_s: float = 1.0
    write_s: float = 15.0
    observe_s: float = 60.0


class Said:
    """What a process has written to its log since it started.

    Attributes:
        connected: when the coordinator took the node in, in seconds since 1970; None before.
        exit_code: Flower's own exit code (the process's is 1 for every failure); None while there is none.
        last: the last line that is not empty.
    """

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset
        self.connected: float | None = None
        self.exit_code: int | None = None
        self.last = ""

    def read(self, path: Path, now: float) -> None:
        """Read what is new, as far as lines are complete."""
        try:
            with path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return
        complete = new[: new.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.decode(errors="replace").splitlines():
            if line.strip():
                self.last = line.strip()
            if self.connected is None and _CONNECTED.search(line):
                self.connected = now
            if found := _EXIT.search(line):
                self.exit_code = int(found[1])


def explained(code: int, said: Said, failures: int, log: Path) -> str:
    """Why a process ended, in words, with the remedy.

    Args:
        code: the process's exit code; negative for a signal.
        said: its log.
        failures: how many processes in a row failed, this one included.
        log: named where the reason is only there.
    """
    if said.exit_code == _NOT_LET_IN and failures > 1:
        return (
            "the coordinator does not let this node in (Flower's exit 305), and has had time to forget the process "
            "before it: this site's key is not registered there, or was removed; ask the coordinator to run fedimb "
            "deploy status, and send the join file if the site is missing"
        )
    if said.exit_code == _NOT_LET_IN:
        return (
            "the coordinator did not let this node in (Flower's exit 305): it still believes the process before this "
            "one to be alive, which passes within 60 seconds, or it does not know this site's key"
        )
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        memory = "; if nobody did, memory ran out: see the kernel's log, and limits.memory_gb" if code == -9 else ""
        return f"the SuperNode was ended by {name}{memory}"
    which = f" with Flower's code {said.exit_code}" if said.exit_code is not None else f" with code {code}"
    return f"the SuperNode ended{which}; its last line: {said.last[:200] or 'none'}; all of them: {log}"


def end_politely(pid: int, patience_s: float) -> bool:
    """Ask a process to end, then end it and whatever it started; whether it went by itself.

    One that goes by itself tells the coordinator, so the next may start at once.
    """
    start = start_time(pid)
    everything = record([pid, *descendants(pid)])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while start is not None and start_time(pid) == start and time.monotonic() < deadline:
        time.sleep(0.05)
    went = start_time(pid) != start or start is None
    end(everything | record(descendants(pid)))
    return went
