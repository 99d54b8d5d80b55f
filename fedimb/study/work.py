"""One task of a study, in any process: a run, or a computed reference row."""

import functools
import gc
import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedimb.atomic import write_atomic
from fedimb.config.load import config_sha, from_json, to_json
from fedimb.engine.open import Engine, open_engine
from fedimb.errors import ConfigError, DataError, FedimbError, RunDiverged, traceback_of
from fedimb.rundir.arrival_journal import follows_arrivals
from fedimb.rundir.changes import Changed
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import RunResult
from fedimb.rundir.seal import Damaged
from fedimb.schema import RunConfig
from fedimb.serverapp.launch import launch, resume
from fedimb.serverapp.progress import ProgressBar

REFERENCES = "references"
"""Folder of the computed rows in a study's folder."""
_TIDY_EVERY_S = 10.0


@dataclass(frozen=True)
class Task:
    """One piece of work.

    Attributes:
        kind: ``run``, or a name of `fedimb.study.computed.COMPUTED`.
        config: canonical text of its configuration.
        what: description for people: row, setting and seed.
        rows: labels of the rows it has results for.
    """

    kind: str
    config: str
    what: str
    rows: tuple[str, ...] = ()

    @functools.cached_property  # asked for again and again, and each time the configuration would be validated anew
    def key(self) -> str:
        """Hash of everything that determines the outcome; equal for tasks with the same outcome."""
        return f"{self.kind}-{config_sha(from_json(self.config))}"

    @staticmethod
    def of(kind: str, config: RunConfig, what: str, rows: Sequence[str] = ()) -> "Task":
        """A task from a configuration."""
        return Task(kind, to_json(config), what, tuple(rows))


@dataclass(frozen=True)
class Done:
    """The outcome of a task.

    Attributes:
        path: run folder, or the file of a computed row; None if there is none.
        status: ``finished``, ``diverged`` (ended with weights or scores that are not finite) or ``failed``.
        error: reason if not finished, else ``""``.
        seconds: wall time.
        refused: a configuration or data error: another run with these settings would fail too.
    """

    path: Path | None
    status: Literal["finished", "diverged", "failed"] = "finished"
    error: str = ""
    seconds: float = 0.0
    refused: bool = False


def folder_of(config: RunConfig) -> Path:
    """The folder of a configuration's run folders."""
    return Path(config.output_dir) / config.study


def reference_path(kind: str, config: RunConfig) -> Path:
    """The file of a computed row."""
    return folder_of(config) / REFERENCES / f"{kind}-{config_sha(config)[:16]}.json"


class Worker:
    """Does tasks one after another, with one engine kept open."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._settings: str = ""
        self._tidied = time.perf_counter()

    def do(self, task: Task, before: Path | None) -> Done:
        """Run a task; raises nothing except on Ctrl-C.

        Args:
            before: an unfinished run folder of the same configuration to continue, or None.
        """
        started = time.perf_counter()
        self._tidy(started)
        try:
            config = from_json(task.config)
            path = self._run(config, before) if task.kind == "run" else _compute(task.kind, config)
        except RunDiverged as error:
            return Done(None, "diverged", str(error), time.perf_counter() - started)
        except FedimbError as error:
            if cause := traceback_of(error):
                logging.getLogger("fedimb").error("%s failed\n%s", task.what, cause)
            refused = isinstance(error, ConfigError | DataError)
            return Done(None, "failed", str(error), time.perf_counter() - started, refused)
        except Exception as error:
            logging.getLogger("fedimb").exception("%s failed", task.what)
            return Done(None, "failed", f"{type(error).__name__}: {error}", time.perf_counter() - started)
        return Done(path, seconds=time.perf_counter() - started)

    def _tidy(self, now: float) -> None:
        """Collect garbage: runs leave reference cycles with tensors that Python would collect too late (gigabytes)."""
        if now - self._tidied > _TIDY_EVERY_S:
            gc.collect()
            self._tidied = now

    def _run(self, config: RunConfig, before: Path | None) -> Path:
        engine = self._open(config)
        quiet = ProgressBar(config.rounds, enabled=False)
        if before is not None:
            try:
                return resume(before, engine, quiet, tracked=False).folder
            except Changed as error:
                logging.getLogger("fedimb").warning("%s; a new run is started", error)
        return launch(config, engine, quiet, tracked=False).folder

    def _open(self, config: RunConfig) -> Engine | None:
        """The open engine if the settings match, else a new one; the trainer setting does not matter here."""
        settings = json.dumps({k: v for k, v in config.engine.items() if k != "trainer"}, sort_keys=True)
        if settings != self._settings:
            self.close()
            self._engine, self._settings = open_engine(config.engine), settings
        return self._engine

    def close(self) -> None:
        """Stop the engine."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self._settings = None, ""


def _compute(kind: str, config: RunConfig) -> Path:
    from fedimb.study.computed import compute

    path = reference_path(kind, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = compute(kind, config)
    write_atomic(path, (json.dumps(found) + "\n").encode())
    return path


def earlier(tasks: Sequence[Task]) -> tuple[dict[str, Done], dict[str, Path]]:
    """Find earlier outcomes of these tasks: (done by key, unfinished run folders by key).

    A run that diverged would do so again and counts as done; one that failed is tried again from its checkpoint. Runs
    that follow an order of arrivals at sites are not taken: the configuration alone does not give their numbers.
    """
    done: dict[str, Done] = {}
    unfinished: dict[str, Path] = {}
    wanted = {task.key: from_json(task.config) for task in tasks}
    for key, config in wanted.items():
        kind = key.partition("-")[0]
        if kind != "run" and (path := reference_path(kind, config)).exists():
            done[key] = Done(path)
    for parent in sorted({folder_of(config) for config in wanted.values()}):
        for path in sorted(parent.glob("*/config.json")):
            try:
                key = f"run-{config_sha(from_json(path.read_text()))}"
            except (FedimbError, OSError):  # from another version: its numbers may differ
                continue
            if key in wanted and key not in done and not follows_arrivals(path.parent):
                folder = RunFolder(path.parent)
                state = folder.read_json("status.json", {})
                if (folder.path / "result.json").exists():
                    try:
                        done[key] = Done(folder.path, *judged(folder.path))
                    except Damaged as error:
                        logging.getLogger("fedimb").warning("%s", error)
                        unfinished[key] = folder.path  # resumed, it writes its result again
                elif state.get("kind") == RunDiverged.__name__:
                    done[key] = Done(folder.path, "diverged", str(state.get("reason", "")))
                else:
                    unfinished[key] = folder.path
    return done, {key: path for key, path in unfinished.items() if key not in done}


def judged(path: Path) -> tuple[Literal["finished", "diverged"], str]:
    """Whether a run that ended has finite scores."""
    final = RunResult.read(path).rows[0].final
    if math.isfinite(final.get("macro_recall", math.nan)):
        return "finished", ""
    return "diverged", "its scores are not finite"


def short(text: str) -> str:
    """A hash for file names."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
