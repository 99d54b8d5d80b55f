"""Run fedimb in a process that ends itself with SIGKILL at a chosen point. Used by tests/run and tests/engine."""

import os
import random
import signal
from pathlib import Path

from warm import WarmPython

POINTS = ("query", "train", "state", "step_result", "metrics", "checkpoint", "after_checkpoint", "sent", "result")
GROUPS = Path(__file__).parent / "groups"


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(point: str, count: int) -> None:
    """End this process at the ``count``-th time the run passes ``point``."""
    from fedimb.clientapp.local_training import LocalTraining
    from fedimb.clientapp.runtime import ClientRuntime
    from fedimb.clientapp.state import StateStore
    from fedimb.rundir.folder import RunFolder
    from fedimb.serverapp import launch
    from fedimb.serverapp.checkpoint import FolderCheckpointer

    owner, name, after = {
        "query": (ClientRuntime, "_query", False),  # inside a Query, some clients done
        "train": (LocalTraining, "reply", False),  # inside a round
        "state": (StateStore, "save", True),  # between a client's write and the checkpoint
        "step_result": (FolderCheckpointer, "save_result", True),
        "metrics": (RunFolder, "append_metrics", True),  # lines written, checkpoint not
        "checkpoint": (FolderCheckpointer, "checkpoint", False),
        "after_checkpoint": (FolderCheckpointer, "checkpoint", True),  # checkpoint written, MLflow not told
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


def start(overrides: list[str], point: str | None = None, count: int = 1) -> None:
    """Run in this process, to the end or to death."""
    import remember  # noqa: F401  registers the method before fedimb.clientapp.app reads the contracts

    from fedimb.config.compose import compose
    from fedimb.config.validate import validate
    from fedimb.serverapp.launch import launch

    if point is not None:
        _arm(point, count)
    launch(validate(compose(overrides, [GROUPS])))


def go_on(folder: str, point: str | None = None, count: int = 1) -> None:
    """Resume in this process, to the end or to death."""
    import remember  # noqa: F401

    from fedimb.serverapp.launch import resume

    if point is not None:
        _arm(point, count)
    resume(Path(folder))


def run(warm: WarmPython, overrides: list[str], cwd: Path, point: str | None = None, count: int = 1) -> int:
    """Run in a process of its own; returns the exit code (-9 when killed)."""
    return warm(cwd, f"import killing; killing.start({overrides!r}, {point!r}, {count})").returncode


def resume(warm: WarmPython, folder: Path, cwd: Path, point: str | None = None, count: int = 1) -> int:
    """Resume in a process of its own; returns the exit code."""
    return warm(cwd, f"import killing; killing.go_on({str(folder)!r}, {point!r}, {count})").returncode


def seeded_points(seed: int, number: int) -> list[tuple[str, int]]:
    """Kill points drawn by seed; every kind at least once when ``number`` allows."""
    rng = random.Random(seed)
    most = {"query": 8, "train": 24, "state": 30, "step_result": 3, "metrics": 6, "checkpoint": 9,
            "after_checkpoint": 9, "sent": 6, "result": 1}  # fmt: skip
    kinds = list(POINTS) * (number // len(POINTS) + 1)
    return [(kind, rng.randint(1, most[kind])) for kind in kinds[:number]]
