"""Long-lived worker processes that do whole runs, one after another: a crash costs one run, not the study.

Runs of a study are many and small, so each core takes whole runs (``engine=inline``, one thread), not shares of one.
Runs on another engine are done one after another in this process, on one engine that stays open.
"""

import contextlib
import multiprocessing as mp
import os
import signal
import sys
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import torch

from fedimb import process_env
from fedimb.config.load import from_json
from fedimb.study.work import Done, Task, Worker

_PRELOAD = ["fedimb.study.work", "fedimb.study.computed", "fedimb.clientapp.app"]


@dataclass
class _Worker:
    """One worker process: its end of the pipe, and what it is doing."""

    process: ForkServerProcess
    pipe: Connection
    task: Task | None = None


def do_all(
    tasks: Sequence[Task], before: dict[str, Path], workers: int, isolate: bool, logs: Path
) -> Generator[tuple[Task, Done], None, None]:
    """Do tasks in order, several at once; yields each as it ends.

    Args:
        before: unfinished run folders to go on with, by `Task.key`.
        workers: processes; 0: everything here, one after another (for a debugger, or an engine of its own processes).
        isolate: a fresh process for every task.
        logs: folder for what tasks print, a file each, named after the task's key.
    """
    shared = [task for task in tasks if _engine(task) != "inline"]
    small = [task for task in tasks if _engine(task) == "inline"]
    if workers and small:
        yield from _in_processes(small, before, min(workers, len(small)), isolate, logs)
    else:
        shared = list(tasks)
    worker = Worker()
    try:
        for task in shared:
            yield task, worker.do(task, before.get(task.key))
    finally:
        worker.close()


def log_of(task: Task, logs: Path) -> Path:
    """Where a task's output is."""
    return logs / f"{task.key[:24]}.log"


def _engine(task: Task) -> str:
    return str(from_json(task.config).engine["name"]) if task.kind == "run" else "inline"


def _in_processes(
    tasks: Sequence[Task], before: dict[str, Path], count: int, isolate: bool, logs: Path
) -> Generator[tuple[Task, Done], None, None]:
    logs.mkdir(parents=True, exist_ok=True)
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)  # torch is imported once, not once a worker
    waiting, hired = deque(tasks), [_hire(context) for _ in range(count)]
    try:
        for worker in hired:
            _give(worker, waiting, before, logs)
        while any(worker.task is not None for worker in hired):
            ready = wait([worker.pipe for worker in hired if worker.task is not None])
            for at, worker in enumerate(hired):
                if worker.pipe not in ready or worker.task is None:
                    continue
                task, died = worker.task, False
                try:
                    done = worker.pipe.recv()
                except (EOFError, ConnectionError):  # it ended without a word
                    worker.process.join(5)
                    done, died = Done(None, "failed", _how_it_ended(worker.process.exitcode)), True
                if died or isolate:
                    _dismiss(worker)
                    hired[at] = worker = _hire(context)
                worker.task = None
                _give(worker, waiting, before, logs)
                yield task, done
    finally:
        for worker in hired:
            _dismiss(worker)


def _hire(context: ForkServerContext) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker, waiting: deque[Task], before: dict[str, Path], logs: Path) -> None:
    if waiting:
        worker.task = waiting.popleft()
        with contextlib.suppress(BrokenPipeError):  # dead already: `wait` says so
            worker.pipe.send((worker.task, before.get(worker.task.key), log_of(worker.task, logs)))


def _dismiss(worker: _Worker) -> None:
    """End a worker: it has nothing to finish, or it is interrupted and its run can be resumed."""
    worker.pipe.close()
    if worker.process.is_alive():
        worker.process.terminate()
    worker.process.join(5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            return f"its process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"its process ended with exit code {code}"


def _serve(pipe: Connection) -> None:
    """A worker's life: tasks in, results out, until the pipe closes. What a task prints goes into its log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, interrupted, ends its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    process_env.set_defaults()
    torch.set_num_threads(1)  # one core each, also while data are prepared
    worker = Worker()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task, before, log = pipe.recv()
            with open(log, "a", buffering=1) as file:
                _redirect(file.fileno())
                done = worker.do(task, before)
            if done.error:
                print(f"{task.what}: {done.error}", flush=True)
            else:
                log.unlink(missing_ok=True)
            pipe.send(done)
    worker.close()


def _redirect(target: int) -> None:
    """Standard output and error of this process, and of what its libraries print, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
