"""``fedimb region run``: start the region's ServerApp when the root asks and none is at work, and again if it dies."""

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.region import refuse_pending, region_folder
from fedimb.deploy.coordinator.submit import driver_of, end_left_over, submit
from fedimb.deploy.coordinator.superlink import healthy
from fedimb.deploy.files import Folder
from fedimb.deploy.region_spool import FOLDER, Spool, spools
from fedimb.engine import processes
from fedimb.errors import ConfigError, FedimbError, RunFailed
from fedimb.rundir.folder import RunFolder
from fedimb.tracking.lock import Busy, locked

log = logging.getLogger("fedimb")

POLL_S = 1.0
START_S = 120.0
"""Seconds that Flower has to start a ServerApp before it is submitted again."""


@dataclass
class _Started:
    folder: RunFolder
    at: float
    said: str = ""  # the last trouble that was logged


class RegionRuns:
    """Watches a region's node for questions of the root.

    Args:
        deployment: the region's own; its servers are up (``fedimb deploy up``).
        node: folder of the region's node, which another process runs (``fedimb node run``).
        join_s, away_s: seconds to wait for sites at the start, and for one that went away.
    """

    def __init__(self, deployment: Deployment, node: Path, join_s: float = 300.0, away_s: float = 1800.0) -> None:
        self._deployment, self._node, self._waits = deployment, node, (join_s, away_s)
        self._started: dict[str, _Started] = {}
        self._down = False

    def watch(self, stop: threading.Event) -> None:
        """Work until asked to stop.

        Raises:
            ConfigError: another process answers for this node: two would ask the sites twice, and answer in turns.
        """
        try:
            with locked(Folder(self._node).folder(*FOLDER) / "run.lock", 0.0):
                self._watch(stop)
        except Busy:
            raise ConfigError(
                f"another fedimb region run answers for the node in {self._node}: end it before this one is started"
            ) from None

    def _watch(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.look()
            stop.wait(POLL_S)
        for one in self._started.values():
            processes.end(driver_of(one.folder))

    def look(self) -> None:
        """See to every run with an open question, once."""
        for spool in spools(self._node):
            if not self._at_work(spool.run) and spool.pending():
                self._start(spool)

    def _at_work(self, run: str) -> bool:
        """Whether a ServerApp works on the run, or has just been started."""
        one = self._started.get(run)
        if one is None:
            return False
        driver = driver_of(one.folder)
        if any(processes.start_time(int(pid)) == start for pid, start in driver.items()):
            return True
        return not driver and time.monotonic() - one.at < START_S

    def _start(self, spool: Spool) -> None:
        if not healthy(self._deployment):
            if not self._down:
                log.warning("the servers of %s are down: start them with fedimb deploy up", self._deployment.root)
            self._down = True
            return
        self._down = False
        try:
            folder = region_folder(self._deployment, self._node, spool, *self._waits)
        except FedimbError as error:
            log.error("%s: %s", spool.run, error)
            refuse_pending(spool, str(spool.about().get("region", "region")), error)
            return
        if (before := self._started.get(spool.run)) is not None:
            status = folder.read_json("status.json", {})
            if (why := str(status.get("reason") or status.get("status") or "ended")) != before.said:
                log.warning("%s: its ServerApp ended (%s); started again", spool.run, why)
        try:
            end_left_over(self._deployment, folder)
            submit(self._deployment, folder)
        except RunFailed as error:  # the next look tries again
            log.warning("%s: %s", spool.run, error)
            return
        self._started[spool.run] = _Started(folder, time.monotonic())
        log.info("%s: answering the root", spool.run)
