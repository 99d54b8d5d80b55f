"""Run fedimb in a process that ends itself with SIGKILL at a chosen point. Used by tests/run and tests/engine."""

import multiprocessing
import os
import random
import signal
from pathlib import Path

POINTS = ("query", "train", "state", "step_result", "metrics", "checkpoint", "after_checkpoint", "sent", "result")
GROUPS = Path(__file__).parent / "groups"


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(point: str, count: int) -> None:
    """End this process at the ``count``-th time the run passes ``point``."""
    from fedimb.run import launch
    from fedimb.run.checkpoint import FolderKeeper
    from fedimb.run.client import ClientRuntime
    from fedimb.run.folder import RunFolder
    from fedimb.run.state import StateStore

    owner, name, after = {
        "query": (ClientRuntime, "_query", False),  # inside a Query, some clients done
        "train": (ClientRuntime, "_train", False),  # inside a round
        "state": (StateStore, "save", True),  # between a client's write and the checkpoint
        "step_result": (FolderKeeper, "save_result", True),
        "metrics": (RunFolder, "append_metrics", True),  # lines written, checkpoint not
        "checkpoint": (FolderKeeper, "checkpoint", False),
        "after_checkpoint": (FolderKeeper, "checkpoint", True),  # checkpoint written, MLflow not told
        "sent": (launch.ProgressBar, "round", True),
        "result": (launch, "write_result", True),  # result.json written, status not
    }[point]
    original = getattr(owner, name)
    passed = 0

    def wrapped(*args, **kwargs):
        nonlocal passed
        passed += 1
        if passed == count and not after:
            _die()
        value = original(*args, **kwargs)
        if passed == count and after:
            _die()
        return value

    setattr(owner, name, wrapped)


def _start(overrides, point, count, cwd, script=None):
    import remember  # noqa: F401  registers the method before fedimb.app reads the contracts

    from fedimb.config.compose import compose
    from fedimb.config.validate import validate
    from fedimb.run.launch import launch

    os.chdir(cwd)
    if point is not None:
        _arm(point, count)
    launch(validate(compose(overrides, [GROUPS])))


def _resume(folder, cwd):
    import remember  # noqa: F401

    from fedimb.run.launch import resume

    os.chdir(cwd)
    resume(Path(folder))


def context():
    """Processes forked from a server that has imported everything once: a start costs nothing."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["fedimb.app", "fedimb.run.launch", "fedimb.config.compose", "mlflow"])
    return server


def run(overrides, cwd, point=None, count=1, timeout=240) -> int:
    """Run to the end or to death; returns the exit code (-9 when killed)."""
    process = context().Process(target=_start, args=(overrides, point, count, str(cwd)))
    process.start()
    process.join(timeout)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def resume(folder, cwd, timeout=240) -> int:
    """Resume in a fresh process; returns its exit code."""
    process = context().Process(target=_resume, args=(str(folder), str(cwd)))
    process.start()
    process.join(timeout)
    assert process.exitcode is not None, "the resumed run hangs"
    return process.exitcode


def seeded_points(seed: int, number: int) -> list[tuple[str, int]]:
    """Kill points drawn by seed; every kind at least once when ``number`` allows."""
    rng = random.Random(seed)
    most = {"query": 8, "train": 24, "state": 30, "step_result": 3, "metrics": 6, "checkpoint": 9,
            "after_checkpoint": 9, "sent": 6, "result": 1}  # fmt: skip
    kinds = list(POINTS) * (number // len(POINTS) + 1)
    return [(kind, rng.randint(1, most[kind])) for kind in kinds[:number]]
