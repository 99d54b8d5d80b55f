"""Small runs for tests: compose, launch, and what two runs must agree on."""

import hashlib
import os
from pathlib import Path

SMALL = ("data.n_max=60", "clients.count=5", "rounds=3", "local.epochs=1", "tracking=none", "evaluation.bootstrap=0")


def config(*overrides: str, dirs=()):
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate

    return validate(compose([*SMALL, *overrides], list(dirs)))


def launch_in(cwd: Path, *overrides: str, engine=None, dirs=()):
    """Run small settings with run folders below ``cwd``."""
    from fedimb.serverapp.launch import launch
    from fedimb.serverapp.progress import ProgressBar

    cfg = config(*overrides, f"output_dir={cwd}/runs", dirs=dirs)
    return launch(cfg, engine, ProgressBar(cfg.rounds, enabled=False))


def weights_sha(result) -> str:
    """Hash of the final global weights."""
    return hashlib.sha256((result.folder / "artifacts" / "model" / "model.safetensors").read_bytes()).hexdigest()


def alive(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
