"""Supervisor: keeps a node's SuperNode running. Details were measured on Flower 1.41.

A SuperNode that was killed cannot come back at once: the coordinator considers the old process alive for up to 60
seconds (two missed heartbeats of 30 s) and refuses the new one, and Flower exits with code 305 without retrying. So a
process that died is restarted after 65 seconds, and after a longer time with every immediate failure. One that
deregistered itself (SIGTERM) can come back immediately. If the supervisor itself is killed, its SuperNode keeps
running; the next supervisor finds it by process id and start time, asks it to stop, and starts its own.
"""

import json
import logging
import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from fedimb.deploy.home import NodeHome
from fedimb.deploy.site import status as statuses
from fedimb.deploy.site.guard import LAST_MESSAGE
from fedimb.deploy.site.limits import planned_absence
from fedimb.deploy.site.node_process import ProcessLog, Timings, explain_exit, terminate_process
from fedimb.deploy.site.observe import Observation, check_coordinator, observe
from fedimb.deploy.site.status import Status, format_iso
from fedimb.deploy.site.supernode import RECORD, SUPERVISOR, isolated_environment, recorded_process, supernode_command
from fedimb.engine.processes import record, start_time
from fedimb.errors import ConfigError
from fedimb.process_state import stopping
from fedimb.tracking.lock import Busy, locked

log = logging.getLogger("fedimb.node")
_LOG_BYTES = 10_000_000


class Supervisor:
    """Runs and watches one node, in the foreground.

    Args:
        home: the node's folder. node.yaml is read once; changes need a restart.
        timings: how long to wait, see `Timings`.
        command: returns command line and environment of the process to run.
        ask: returns why the coordinator cannot be reached, or None, and a list of warnings.
        clock: returns the time in seconds since 1970.
        notices: problems found before the start; shown as warnings until the next start.
    """

    def __init__(
        self,
        home: NodeHome,
        timings: Timings | None = None,
        command: Callable[[NodeHome], tuple[list[str], dict[str, str]]] = supernode_command,
        ask: Callable[[NodeHome], tuple[str | None, list[str]]] = check_coordinator,
        clock: Callable[[], float] = time.time,
        notices: Sequence[str] = (),
    ) -> None:
        self.home, self.timings = home, timings or Timings()
        self._command, self._clock = command, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._log = home.folder("logs") / "supernode.log"
        self._seen = ProcessLog()
        self._started = self._not_before = 0.0
        self._failures, self._why = 0, ""
        self._stop = threading.Event()
        self._written = self._observed_at = self._asked_at = -math.inf
        self._observed, self._ask = Observation(), ask
        self._away: str | None = None
        self._notices, self._asides = list(notices), list[str]()
        self._status = Status(home.site, "waiting", format_iso(clock()), supervisor=record([os.getpid()]))

    def run(self, once: bool = False) -> int:
        """Run until SIGTERM or Ctrl-C, then return 0.

        Args:
            once: start the process once and return when it ends: 0 if it ended normally, 1 otherwise.

        Raises:
            ConfigError: another supervisor runs this node, or node.yaml, key or certificate cannot be used.
        """
        try:
            with locked(self.home.folder("flwr") / "supervisor.lock", 0.0), stopping(self._stop):
                self._take_over()
                try:
                    return self._watch(once)
                except ConfigError as error:
                    self._show("failed", str(error))
                    raise
                finally:
                    self._end_process()
        except Busy:
            raise ConfigError(f"{self.home.root} already has a running supervisor: see fedimb node status") from None

    def stop(self) -> None:
        """Ask `run` to stop."""
        self._stop.set()

    def _take_over(self) -> None:
        """End a SuperNode left by a killed supervisor, and wait until the coordinator can have noticed."""
        left = recorded_process(self.home)
        alive = [int(pid) for pid, start in left.items() if start_time(int(pid)) == start]
        if alive:
            log.warning("a SuperNode of an earlier supervisor is still running (process %s): stopping it", alive[0])
            if not terminate_process(alive[0], self.timings.stop_s):
                self._not_before, self._why = self._clock() + self.timings.restart_s, "it had to be killed"
        elif left:  # it died unobserved: before now, and after its supervisor last wrote
            self._not_before = min(statuses.last_written(self.home), self._clock()) + self.timings.restart_s
            self._why = "the previous process was killed"

    def _watch(self, once: bool) -> int:
        while not self._stop.is_set():
            if self._process is not None and self._process.poll() is not None:
                code = self._process.wait()
                self._died(code)
                if once:
                    self._show("failed" if code else "stopped", self._why)
                    return 1 if code else 0
            self._step()
            self._stop.wait(self.timings.check_s)
        self._show("stopped", "asked to stop", ending=True)
        self._end_process()
        self._show("stopped", "asked to stop")
        return 0

    def _step(self) -> None:
        """Check once, and start or stop the process as needed."""
        now = self._clock()
        self._look(now)
        away = planned_absence(self.home.config, datetime.fromtimestamp(now))
        full = self._observed.disk.refusal() if self._observed.disk else None
        if away is not None or full is not None:
            self._end_process()
        if away is not None:
            self._show("absent", f"{away.reason}, back {away.until:%Y-%m-%d %H:%M} local time")
        elif full is not None:
            self._show("failed", full)
        elif self._process is None and now < self._not_before:
            self._show("failed", f"{self._why}; next start at {format_iso(self._not_before)}")
        else:
            if self._process is None:
                self._start(now)
                self._away = None
            self._show(*self._going())

    def _going(self) -> tuple[str, str]:
        if self._seen.connected is None:
            address = self.home.config.coordinator
            where = f"{address.host}:{address.port}" if address else "the coordinator"
            return "waiting", f"for {where} to accept the node" + (f": {self._away}" if self._away else "")
        if self._away:
            return "waiting", f"for the coordinator, which was reachable before: {self._away}"
        if self._observed.inbox:
            return "waiting", f"{self._observed.inbox} items wait for a person: fedimb node inbox"
        return "running", ""

    def _start(self, now: float) -> None:
        words, environment = self._command(self.home)
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as out:
            self._seen = ProcessLog(out.tell())
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=isolated_environment(self.home),
                env=environment | {SUPERVISOR: str(os.getpid())},
                start_new_session=True,
            )
        path = self.home.folder("flwr") / RECORD[-1]
        path.write_text(json.dumps(record([self._process.pid])))
        self._started = now
        self._status.restarts += bool(self._failures)
        log.warning("started the SuperNode (process %s)", self._process.pid)

    def _died(self, code: int) -> None:
        now = self._clock()
        self._seen.read(self._log, now)
        self._process = None
        if code == 0 or self._seen.connected is None:  # otherwise the record tells the next supervisor to wait
            self.home.file(*RECORD).unlink(missing_ok=True)
        if code == 0:
            self._failures, self._not_before, self._why = 0, now + self.timings.again_s, "it exited normally"
            return
        steady = self._seen.connected is not None and now - self._started >= self.timings.steady_s
        self._failures = 1 if steady else self._failures + 1
        wait = min(self.timings.restart_s * 2 ** min(self._failures - 1, 10), self.timings.max_s)
        self._not_before = now + max(wait, self.timings.restart_s)
        self._why = explain_exit(code, self._seen, self._failures, self._log)
        log.error("%s; next start at %s", self._why, format_iso(self._not_before))

    def _end_process(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        went = terminate_process(process.pid, self.timings.stop_s)
        process.wait()
        if went:
            self.home.file(*RECORD).unlink(missing_ok=True)
        else:
            self._not_before, self._why = self._clock() + self.timings.restart_s, "it had to be killed"

    def _look(self, now: float) -> None:
        self._seen.read(self._log, now)
        if now - self._observed_at >= self.timings.observe_s:
            self._observed, self._observed_at = observe(self.home), now
        unsure = self._seen.connected is None or self._away
        pause = self.timings.write_s if unsure else self.timings.observe_s
        if self._process is not None and now - max(self._asked_at, self._started) >= pause:
            (self._away, self._asides), self._asked_at = self._ask(self.home), now

    def _show(self, state: str, reason: str, ending: bool = False) -> None:
        now, before = self._clock(), self._status
        changed = (state, reason) != (before.state, before.reason)
        if not changed and now - self._written < self.timings.write_s and not ending:
            return
        if changed:
            log.warning("%s%s", state, f": {reason}" if reason else "")
        before.since = format_iso(now) if state != before.state else before.since
        before.state, before.reason, before.time = state, reason, format_iso(now)
        before.node = None if self._process is None else self._process.pid
        before.connected = (
            None if self._seen.connected is None or self._process is None else format_iso(self._seen.connected)
        )
        before.message = statuses.read_json(self.home.file(*LAST_MESSAGE))
        self._observed.fill(before)
        before.warnings += [*self._asides, *self._notices]
        statuses.write_status(self.home, before)
        self._written = now
