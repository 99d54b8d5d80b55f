"""One SuperNode process: reading its log, explaining why it ended, ending it.

The log's texts are those of Flower 1.41.
"""

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
_REFUSED = re.compile(r"\bgate: (.+)")
"""What the coordinator's nginx says of a call that it does not let through (fedimb.deploy.coordinator.gate)."""
_NOT_LET_IN = 305  # ExitCode.SUPERNODE_CONNECTION_ERROR


@dataclass(frozen=True)
class Timings:
    """How long a supervisor waits, in seconds.

    Attributes:
        restart_s: before restarting a process that died; the coordinator needs up to 60 s to notice.
        again_s: before restarting a process that exited normally, and so told the coordinator.
        max_s: longest wait, however often the process failed in a row.
        steady_s: run time after which a failure counts as the first one again.
        stop_s: for a process to stop when asked, before it is killed.
        check_s: between checks of the process.
        write_s: between writes of the status.
        observe_s: between checks of disk, inbox and coordinator.
    """

    restart_s: float = 65.0
    again_s: float = 5.0
    max_s: float = 900.0
    steady_s: float = 300.0
    stop_s: float = 20.0
    check_s: float = 1.0
    write_s: float = 15.0
    observe_s: float = 60.0


class ProcessLog:
    """The log of a process since its start.

    Attributes:
        connected: when the coordinator accepted the node, in seconds since 1970; None before that.
        exit_code: Flower's own exit code (the process always exits with 1 on failure); None before it exits.
        refused: why the coordinator's nginx did not let it through; empty if it did not say.
        last: the last line that is not empty.
    """

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset
        self.connected: float | None = None
        self.exit_code: int | None = None
        self.refused = self.last = ""

    def read(self, path: Path, now: float) -> None:
        """Read new lines, as far as they are complete."""
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
            if found := _REFUSED.search(line):
                self.refused = found[1].strip()[:200]
            if found := _EXIT.search(line):
                self.exit_code = int(found[1])


def explain_exit(code: int, said: ProcessLog, failures: int, log: Path) -> str:
    """Explain why a process ended, with the remedy.

    Args:
        code: the process's exit code; negative for a signal.
        said: what it wrote to its log.
        failures: number of processes in a row that failed, including this one.
        log: path of the log, named if only the log has the reason.
    """
    if "clock" in said.refused:
        return (
            f"the coordinator does not let this node in: {said.refused}; set this machine's clock (timedatectl set-ntp "
            "true), and ask the coordinator to check theirs"
        )
    if said.exit_code == _NOT_LET_IN and (failures > 1 or said.refused):
        return (
            "the coordinator does not let this node in (Flower's exit 305), although it has had time to notice that "
            "the "
            "previous process ended: this site's key is not registered there, or was removed; ask the coordinator "
            "to run "
            "fedimb deploy status, and send the join file if the site is missing"
        )
    if said.exit_code == _NOT_LET_IN:
        return (
            "the coordinator did not let this node in (Flower's exit 305): either it still considers the previous "
            "process "
            "alive, which takes up to 60 seconds, or it does not know this site's key"
        )
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        memory = (
            "; if nobody killed it, memory ran out: see the kernel's log and limits.memory_gb" if code == -9 else ""
        )
        return f"the SuperNode was killed by {name}{memory}"
    which = f" with Flower's code {said.exit_code}" if said.exit_code is not None else f" with code {code}"
    return f"the SuperNode ended{which}; its last line: {said.last[:200] or 'none'}; full log: {log}"


def terminate_process(pid: int, patience_s: float) -> bool:
    """Ask a process to stop, then kill it and everything it started. Returns whether it stopped when asked.

    A process that stops when asked tells the coordinator, so the next one may start immediately.
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
