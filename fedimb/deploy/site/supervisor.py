"""Keeps a node's SuperNode running, and knows its traps. Traps measured on Flower 1.41.

A SuperNode that was killed may not come back at once: its coordinator believes the old process alive for up to 60
seconds (two missed heartbeats of 30), refuses the new one, and Flower exits with code 305 without trying again. So a
process that died is started again after 65 seconds, later each time it fails at once. One that deregistered itself
(SIGTERM) may come back immediately. A supervisor that was killed itself leaves its SuperNode running; the next one
finds it by process id and start time, ends it politely, and goes on.
"""

import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from fedimb.deploy.home import NodeHome
from fedimb.deploy.site import status as statuses
from fedimb.deploy.site.guard import LAST_MESSAGE
from fedimb.deploy.site.limits import absence
from fedimb.deploy.site.node_process import Patience, Said, end_politely, explained
from fedimb.deploy.site.observe import Observed, ask, observe
from fedimb.deploy.site.status import Status, iso
from fedimb.deploy.site.supernode import RECORD, SUPERVISOR, isolated_environment, recorded, supernode_command
from fedimb.engine.processes import record, start_time
from fedimb.errors import ConfigError
from fedimb.tracking.lock import Busy, locked

log = logging.getLogger("fedimb.node")
_LOG_BYTES = 10_000_000


class Supervisor:
    """Watches over one node, in the foreground.

    Args:
        home: the node's folder; node.yaml is read once, a change of it needs a restart.
        patience: how long to wait for what.
        command: words and environment of the process to watch.
        ask: why the coordinator cannot be reached, or None; and what is not well with it.
        clock: now, in seconds since 1970.
        notices: what was not well at the start: shown as warnings until the next.
    """

    def __init__(
        self,
        home: NodeHome,
        patience: Patience | None = None,
        command: Callable[[NodeHome], tuple[list[str], dict[str, str]]] = supernode_command,
        ask: Callable[[NodeHome], tuple[str | None, list[str]]] = ask,
        clock: Callable[[], float] = time.time,
        notices: Sequence[str] = (),
    ) -> None:
        self.home, self.patience = home, patience or Patience()
        self._command, self._clock = command, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._log = home.folder("logs") / "supernode.log"
        self._seen = Said()
        self._started = self._not_before = 0.0
        self._failures, self._why = 0, ""
        self._stop = threading.Event()
        self._written = self._observed_at = self._asked_at = -math.inf
        self._observed, self._ask = Observed(), ask
        self._away: str | None = None
        self._notices, self._asides = list(notices), list[str]()
        self._status = Status(home.site, "waiting", iso(clock()), supervisor=record([os.getpid()]))

    def run(self, once: bool = False) -> int:
        """Until SIGTERM or Ctrl-C; 0 then.

        Args:
            once: start the process once, and return when it ends: 0 when it ended well, 1 otherwise.

        Raises:
            ConfigError: another supervisor watches over this node, or node.yaml, key or certificate cannot be used.
        """
        try:
            with locked(self.home.folder("flwr") / "supervisor.lock", 0.0), self._signals():
                self._take_over()
                try:
                    return self._watch(once)
                except ConfigError as error:
                    self._show("failed", str(error))
                    raise
                finally:
                    self._end_process()
        except Busy:
            raise ConfigError(f"{self.home.root} is already watched over: see fedimb node status") from None

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stop.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, lambda *_: self._stop.set()) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _take_over(self) -> None:
        """End a SuperNode that a killed supervisor left, and wait as long as the coordinator needs to forget one."""
        left = recorded(self.home)
        alive = [int(pid) for pid, start in left.items() if start_time(int(pid)) == start]
        if alive:
            log.warning("a SuperNode of an earlier supervisor still runs (process %s): ending it", alive[0])
            if not end_politely(alive[0], self.patience.stop_s):
                self._not_before, self._why = self._clock() + self.patience.restart_s, "it had to be killed"
        elif left:  # it died unseen: no later than now, and no earlier than its supervisor last wrote
            self._not_before = min(statuses.last_written(self.home), self._clock()) + self.patience.restart_s
            self._why = "the process before this one was killed"

    def _watch(self, once: bool) -> int:
        while not self._stop.is_set():
            if self._process is not None and self._process.poll() is not None:
                code = self._process.wait()
                self._died(code)
                if once:
                    self._show("failed" if code else "stopped", self._why)
                    return 1 if code else 0
            self._step()
            self._stop.wait(self.patience.look_s)
        self._show("stopped", "asked to stop", ending=True)
        self._end_process()
        self._show("stopped", "asked to stop")
        return 0

    def _step(self) -> None:
        """One look: what should be, what is, and the difference made good."""
        now = self._clock()
        self._look(now)
        away = absence(self.home.config, datetime.fromtimestamp(now))
        full = self._observed.disk.refusal() if self._observed.disk else None
        if away is not None or full is not None:
            self._end_process()
        if away is not None:
            self._show("absent", f"{away.reason}, back {away.until:%Y-%m-%d %H:%M} local time")
        elif full is not None:
            self._show("failed", full)
        elif self._process is None and now < self._not_before:
            self._show("failed", f"{self._why}; started again at {iso(self._not_before)}")
        else:
            if self._process is None:
                self._start(now)
                self._away = None
            self._show(*self._going())

    def _going(self) -> tuple[str, str]:
        if self._seen.connected is None:
            address = self.home.config.coordinator
            where = f"{address.host}:{address.port}" if address else "the coordinator"
            return "waiting", f"for {where} to let the node in" + (f": {self._away}" if self._away else "")
        if self._away:
            return "waiting", f"for the coordinator, which was there before: {self._away}"
        if self._observed.inbox:
            return "waiting", f"{self._observed.inbox} wait for a person: fedimb node inbox"
        return "running", ""

    def _start(self, now: float) -> None:
        words, environment = self._command(self.home)
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as out:
            self._seen = Said(out.tell())
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
        if code == 0 or self._seen.connected is None:  # else the record tells the next supervisor to wait
            self.home.file(*RECORD).unlink(missing_ok=True)
        if code == 0:
            self._failures, self._not_before, self._why = 0, now + self.patience.again_s, "it ended by itself"
            return
        steady = self._seen.connected is not None and now - self._started >= self.patience.steady_s
        self._failures = 1 if steady else self._failures + 1
        wait = min(self.patience.restart_s * 2 ** min(self._failures - 1, 10), self.patience.most_s)
        self._not_before = now + max(wait, self.patience.restart_s)
        self._why = explained(code, self._seen, self._failures, self._log)
        log.error("%s; started again at %s", self._why, iso(self._not_before))

    def _end_process(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        went = end_politely(process.pid, self.patience.stop_s)
        process.wait()
        if went:
            self.home.file(*RECORD).unlink(missing_ok=True)
        else:
            self._not_before, self._why = self._clock() + self.patience.restart_s, "it had to be killed"

    def _look(self, now: float) -> None:
        self._seen.read(self._log, now)
        if now - self._observed_at >= self.patience.observe_s:
            self._observed, self._observed_at = observe(self.home), now
        unsure = self._seen.connected is None or self._away
        pause = self.patience.write_s if unsure else self.patience.observe_s
        if self._process is not None and now - max(self._asked_at, self._started) >= pause:
            (self._away, self._asides), self._asked_at = self._ask(self.home), now

    def _show(self, state: str, reason: str, ending: bool = False) -> None:
        now, before = self._clock(), self._status
        changed = (state, reason) != (before.state, before.reason)
        if not changed and now - self._written < self.patience.write_s and not ending:
            return
        if changed:
            log.warning("%s%s", state, f": {reason}" if reason else "")
        before.since = iso(now) if state != before.state else before.since
        before.state, before.reason, before.time = state, reason, iso(now)
        before.node = None if self._process is None else self._process.pid
        before.connected = None if self._seen.connected is None or self._process is None else iso(self._seen.connected)
        before.message = statuses.read_json(self.home.file(*LAST_MESSAGE))
        self._observed.fill(before)
        before.warnings += [*self._asides, *self._notices]
        statuses.write(self.home, before)
        self._written = now
