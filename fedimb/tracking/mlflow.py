"""MLflow tracking of a run: sends metrics during training, never stops training, and sends the rest later.

The run folder is the source of truth and MLflow a copy: `MlflowTracker` reads ``rows.json``, ``metrics.jsonl``,
``status.json`` and ``artifacts/`` and writes only ``tracking.json`` and ``tracking.id``. Server process only;
clients never import it.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedimb.errors import DataError, FedimbError
from fedimb.process_state import log_level
from fedimb.rundir.folder import RunFolder
from fedimb.tracking.lock import Busy
from fedimb.tracking.projection import Projection, read_rows
from fedimb.tracking.state import load
from fedimb.tracking.store import LOUD, charts_link, connect, prepare_store, reason_of, resolve_uri, shown

__all__ = [
    "MlflowTracker",
    "NoTracker",
    "SyncReport",
    "Tracker",
    "charts_link",
    "mark_stale",
    "prepare_store",
    "resolve_uri",
    "sync",
]

STALE_TAG = "fedimb.stale"
"""On runs that a study replaced by newer ones: what changed."""
_log = logging.getLogger(__name__)

_INTERVAL_S = 10.0  # between two sends: a run shorter than this is sent in one batch at its end
_BUDGET_S = 5.0  # time limit of one send while training; the rest after an outage follows in the next ones
_BACK_OFF_S = (10.0, 300.0)  # first and longest pause after a failure
_MOST_TEXT = 300  # characters of a reason in a tag
_WAIT_S = 30.0  # for a sync running at the same time


class Tracker(Protocol):
    """The interface called by the run loop. No method raises because of a server or a database."""

    def start(self) -> None:
        """The run starts or continues; ``rows.json`` is written."""

    def send(self, force: bool = False) -> None:
        """``metrics.jsonl`` has grown and the checkpoint that covers it is on disk."""

    def finish(self) -> None:
        """``status.json`` and the artifacts are written."""


class NoTracker:
    """tracking=none: only the run folder."""

    def start(self) -> None:
        """Nothing to do."""

    def send(self, force: bool = False) -> None:
        """Nothing to do."""

    def finish(self) -> None:
        """Nothing to do."""


class MlflowTracker:
    """Sends one run folder to MLflow (see `Tracker`). Failures are logged once per outage, as a warning."""

    def __init__(self, folder: Path, uri: str, experiment: str) -> None:
        """
        Args:
            folder: the run folder.
            uri: as `resolve_uri` returns it.
            experiment: the study's name.
        """
        self.folder = Path(folder)
        self.uri = uri
        self._projection = Projection(self.folder, uri, experiment, reopen=True)
        self._last = time.monotonic()
        self._retry_at = 0.0
        self._pause = _BACK_OFF_S[0]
        self._failing = False

    def start(self) -> None:
        """Create the runs, or find them again. Creates the store too if it is missing (`prepare_store`)."""
        self._last = time.monotonic()
        self._attempt("the start", lambda: self._projection.push(_WAIT_S, lines=False))

    def send(self, force: bool = False) -> None:
        """Send new points: at most every 10 s unless ``force``, and not in the pause after a failure."""
        now = time.monotonic()
        if now < self._retry_at or (not force and now - self._last < _INTERVAL_S):
            return
        self._last = now
        self._attempt("metrics", lambda: self._projection.push(0.0, budget_s=_BUDGET_S))

    def finish(self) -> None:
        """Send the remaining points, the artifacts and the status; warns if that fails."""
        self._failing = False  # the last message: logged even if the outage is already known
        self._attempt("the end", lambda: self._projection.push(_WAIT_S, close=True))

    def _attempt(self, what: str, work: Callable[[], object]) -> None:
        """The one place where MLflow's failures are caught: tracking must never cost a training run."""
        try:
            with log_level(LOUD, logging.CRITICAL):
                work()
        except Busy as error:
            _log.debug("%s", error)  # a concurrent sync sends the same lines
            if what == "the end":
                self._warn(what, error)
        except Exception as error:
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _BACK_OFF_S[1])
            self._warn(what, error)
        else:
            if self._failing:
                _log.warning("MLflow at %s responds again", shown(self.uri))
            self._failing, self._pause, self._retry_at = False, _BACK_OFF_S[0], 0.0

    def _warn(self, what: str, error: Exception) -> None:
        kept = "the run is complete" if what == "the end" else "training continues"
        message = (
            f"MLflow at {shown(self.uri)} did not accept {what} of {self.folder}: {reason_of(error)}; "
            f"{kept} and nothing is lost: `fedimb track sync {self.folder}` sends it later"
        )
        _log.log(logging.DEBUG if self._failing else logging.WARNING, "%s", message)
        self._failing = True


@dataclass(frozen=True)
class SyncReport:
    """The result of a sync.

    Attributes:
        sent_points: points sent now (0 if all were there).
        runs: MLflow run id by row label.
        uri: address of the store; may contain a password: print it through `fedimb.tracking.store.shown`.
        experiment: name of the experiment.
    """

    sent_points: int
    runs: dict[str, str]
    uri: str
    experiment: str


def sync(folder: str | Path, uri: str | None = None, experiment: str | None = None) -> SyncReport:
    """Bring MLflow up to date with a run folder; twice in a row is the same as once.

    Args:
        folder: the run folder, finished or not.
        uri, experiment: destination; None: where the run was tracked, else its configuration's, else the database of
            its output folder.

    Raises:
        DataError: not a run folder, or a damaged file in it.
        FedimbError: the store cannot be reached or used; names it and the reason.
    """
    folder = Path(folder).expanduser().resolve()
    read_rows(folder)
    if (folder / "config.json").is_file():
        RunFolder.open(folder).check_sealed("config.json", "rows.json", "metrics.jsonl", "partition.", "artifacts/")
    state = load(folder)
    if state is not None and uri is None and experiment is None:
        uri, experiment = state.uri, state.experiment
    else:
        configured = _configured(folder)
        uri = resolve_uri(uri or (state.uri if state else None) or configured[0], folder.parent.parent)
        experiment = experiment or (state.experiment if state else None) or configured[1]
    try:
        with log_level(LOUD, logging.CRITICAL):
            sent, state = Projection(folder, uri, experiment, patient=True).push(_WAIT_S, close=True)
    except FedimbError:
        raise
    except Exception as error:
        raise FedimbError(
            f"MLflow at {shown(uri)} did not accept {folder}: {reason_of(error)}; check that it is running,"
            " then sync again (points that arrived are not sent twice)"
        ) from error
    return SyncReport(sent, dict(state.runs), uri, experiment)


def mark_stale(folder: Path, why: str) -> None:
    """Tag the MLflow runs of a run folder with ``fedimb.stale``: tables of the experiment leave them out.

    Raises:
        FedimbError: the store cannot be reached or used.
    """
    state = load(folder)
    if state is None or not state.runs:
        return
    try:
        client = connect(state.uri, True)
        for run_id in state.runs.values():
            client.set_tag(run_id, STALE_TAG, why[:_MOST_TEXT])
    except FedimbError:
        raise
    except Exception as error:
        raise FedimbError(
            f"MLflow at {shown(state.uri)} did not take the mark that {folder} is stale: {reason_of(error)}; its charts"
            " still show that run"
        ) from error


def _configured(folder: Path) -> tuple[str | None, str]:
    """(uri, experiment) of ``config.json``."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        tracking = config.get("tracking") or {}
        return tracking.get("uri"), str(tracking.get("experiment") or config["study"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} does not say where to track ({type(error).__name__}: {error}); give uri and experiment"
        ) from None
