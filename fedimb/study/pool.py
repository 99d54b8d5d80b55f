"""Long-lived worker processes that do complete runs, one after another: a crash costs one run, not the study.

A study has many small runs, so each core does complete runs (``engine=inline``, one thread) rather than a share of one.
Runs on another engine are done one after another in this process, on one engine that stays open.
"""

import contextlib
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
from fedimb.study.forkserver import workers_context
from fedimb.study.work import Done, Task, Worker


@dataclass
class _Worker:
    """One worker process, our end of its pipe, and its current task."""

    process: ForkServerProcess
    pipe: Connection
    task: Task | None = None


def do_all(
    tasks: Sequence[Task], before: dict[str, Path], workers: int, isolate: bool, logs: Path
) -> Generator[tuple[Task, Done], None, None]:
    """Run tasks in order, several at once; yields each as it ends.

    Args:
        before: unfinished run folders to continue, by `Task.key`.
        workers: number of processes; 0: everything in this process, one after another (for a debugger, or an engine
            with its own processes).
        isolate: use a new process for every task.
        logs: folder for the tasks' output, one file per task, named after its key.
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
    """The file with a task's output."""
    return logs / f"{task.key[:24]}.log"


def _engine(task: Task) -> str:
    return str(from_json(task.config).engine["name"]) if task.kind == "run" else "inline"


def _in_processes(
    tasks: Sequence[Task], before: dict[str, Path], count: int, isolate: bool, logs: Path
) -> Generator[tuple[Task, Done], None, None]:
    logs.mkdir(parents=True, exist_ok=True)
    context = workers_context()
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
                except (EOFError, ConnectionError):  # the process died
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
    """Stop a worker: it is idle, or it is interrupted and its run can be resumed."""
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
            return f"its process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"its process ended with exit code {code}"


def _serve(pipe: Connection) -> None:
    """The worker's loop: receive tasks, send results, until the pipe closes. A task's output goes to its log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers when interrupted
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    process_env.set_defaults()
    torch.set_num_threads(1)  # one core each, also while preparing data
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
    """Redirect standard output and error of this process, including its libraries, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
