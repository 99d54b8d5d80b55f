"""Runs a study's tasks: skips finished ones, shows progress, sends runs to MLflow as they end, records failures."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from fedimb.config.load import from_json
from fedimb.errors import ConfigError, FedimbError, RunFailed
from fedimb.rundir.result import RunResult
from fedimb.rundir.source_files import remember_imported
from fedimb.schema import RunConfig
from fedimb.serverapp.progress import ProgressBar
from fedimb.study.pool import do_all, log_of
from fedimb.study.reuse import Reuse, changed_meanwhile, standing
from fedimb.study.work import Done, Task, earlier
from fedimb.tracking.mlflow import prepare_store, resolve_uri, sync

log = logging.getLogger("fedimb")


@dataclass(frozen=True)
class Workers:
    """How tasks are run.

    Attributes:
        workers: number of processes; 0: everything in this process.
        isolate: use a new process for every task.
        logs: folder for the output of tasks that failed.
        reuse: which earlier runs are used again.
    """

    workers: int
    isolate: bool
    logs: Path
    reuse: Reuse = field(default_factory=Reuse)


def workers_of(count: int | None, folder: Path, isolate: bool = False, reuse: Reuse | None = None) -> Workers:
    """Worker settings with logs in a study's folder.

    Args:
        count: number of processes; 0: everything in this process; None: one per core this process may use.

    Raises:
        ConfigError: below 0.
    """
    if count is None:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < 0:
        raise ConfigError(f"workers={count}: give 1 or more, or 0 to run everything in this process")
    return Workers(count, isolate, folder / "logs", reuse or Reuse())


def execute(tasks: Sequence[Task], workers: Workers, title: str) -> dict[str, Done]:
    """Run the tasks that are not done yet, and those whose earlier run is stale (`fedimb.study.reuse`).

    Args:
        title: title of the progress bar.

    Returns:
        The outcome of every task by key, including those done before.

    Raises:
        ConfigError, DataError, FedimbError: see `standing`.
    """
    remember_imported()
    found = standing(tasks, workers.reuse)
    done, unfinished = found.done, found.unfinished
    if sentence := found.sentence():
        log.warning("%s", sentence)
    left = [task for task in tasks if task.key not in done]
    tracked = _prepare_tracking([*left, *_unsent(tasks, done)])
    with _explained_interrupt(), ProgressBar(len(tasks), unit="runs") as progress:
        progress.title(title)
        progress.skip(len(tasks) - len(left))
        doing = do_all(left, unfinished, workers.workers, workers.isolate, workers.logs)
        with contextlib.closing(doing):  # ends the workers, also if interrupted between two results
            for task, ended in doing:
                done[task.key] = ended
                if tracked and task.kind == "run" and ended.path is not None:
                    _send(ended.path)
                progress.skip(1)
    done = _with_folders(tasks, done)
    if left and (sentence := changed_meanwhile(tasks, done)):
        log.warning("%s", sentence)
    for task in _unsent(tasks, done) if tracked else ():
        _send(cast(Path, done[task.key].path))
    return done


@contextlib.contextmanager
def _explained_interrupt() -> Iterator[None]:
    """Tell a user who interrupts a study how to continue it."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("run the same command again to continue")
        raise


def _unsent(tasks: Sequence[Task], done: Mapping[str, Done]) -> list[Task]:
    """Runs that ended but are not in MLflow: diverged, or finished just before the study was interrupted."""
    ended = [(task, done[task.key]) for task in tasks if task.kind == "run" and task.key in done]
    return [
        task
        for task, one in ended
        if one.status != "failed" and one.path is not None and not (one.path / "tracking.json").exists()
    ]


def _with_folders(tasks: Sequence[Task], done: dict[str, Done]) -> dict[str, Done]:
    """Add the run folders of tasks that ended without a result, if they have one: tables show it too."""
    lost = [task for task in tasks if task.kind == "run" and done[task.key].path is None]
    if not lost:
        return done
    ended, unfinished = earlier(lost)
    return done | {key: replace(done[key], path=path) for key, path in unfinished.items()} | ended


def results_of(configs: Sequence[RunConfig], workers: Workers, title: str) -> list[RunResult]:
    """Run configurations that are useful only if all of them finish.

    Raises:
        RunFailed: one did not finish; says which, and why.
    """
    tasks = [Task.of("run", config, f"{title}, run {at}") for at, config in enumerate(configs)]
    done = execute(list({task.key: task for task in tasks}.values()), workers, title)
    if lost := failures(tasks, done, workers):
        raise RunFailed(f"{len(lost)} of {len(tasks)} runs did not finish; the first: {lost[0]}")
    return [RunResult.read(path) for task in tasks if (path := done[task.key].path) is not None]


def failures(tasks: Sequence[Task], done: dict[str, Done], workers: Workers) -> list[str]:
    """A line for each task that did not finish: its name, the reason, and the file with its output."""
    lines = []
    for task in tasks:
        ended = done[task.key]
        if ended.status != "finished":
            reason = next((line.strip() for line in ended.error.splitlines() if line.strip()), "no reason given")
            where = log_of(task, workers.logs)
            lines.append(f"{ended.status}: {task.what}: {reason}" + (f" (log: {where})" if where.exists() else ""))
    return lines


def _prepare_tracking(tasks: Sequence[Task]) -> bool:
    """Whether runs are sent to MLflow; creates its store once, before several processes write to it."""
    config = next((from_json(task.config) for task in tasks if task.kind == "run"), None)
    if config is None or config.tracking["name"] == "none":
        return False
    try:
        prepare_store(*store_of(config))
    except FedimbError as error:
        log.warning("%s; the study continues, `fedimb track sync RUN` sends a run later", error)
        return False
    return True


def store_of(config: RunConfig) -> tuple[str, str]:
    """(uri, experiment) in which a run is tracked."""
    uri = resolve_uri(config.tracking.get("uri"), Path(config.output_dir))
    return uri, str(config.tracking.get("experiment") or config.study)


def _send(path: Path) -> None:
    try:
        sync(path)
    except FedimbError as error:  # the run folder is complete and can be sent later
        log.warning("%s", error)
