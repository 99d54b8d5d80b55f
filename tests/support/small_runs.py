"""Small runs for tests: compose, launch, and what two runs must agree on."""

import hashlib
import os
from pathlib import Path

SMALL = ("data.n_max=60", "clients.count=5", "rounds=3", "local.epochs=1", "tracking=none", "evaluation.bootstrap=0")


def config(*overrides: str, dirs=()):
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate

    return validate(compose((), list(dirs), shared=[*SMALL, *overrides]))  # words of helpers that not every run reads


TINY = {
    "active": ("cycles=2", "budget=4", "local_epochs=2"),
    "c2tc": ("use=init", "keep=0.5", "min_count=2", "epochs=1"),
    "class_incremental": ("memory=6",),
    "creff": ("per_class=3", "match_steps=2", "head_epochs=2"),
    "fairfal": ("cycles=2", "budget=4", "local_epochs=2"),
    "fediic": ("steps=5",),
    "feddf": ("epochs=2",),
    "fedmd": ("min_rows=1",),
    "fedproto": ("min_count=1",),
    "fedyoyo": ("strong={name: noise}",),
    "feature_select": ("min_count=1",),
    "fedssg": ("training={steps: 2}", "pretrain=1", "force=true"),
    "herocrystal": ("epochs=2",),
    "mahalanobis": ("min_count=1",),
    "oneround": ("use=post",),
    "public": ("epochs=1",),
    "rucr": ("per_class=5", "head_epochs=2"),
    "scope": ("warmup=1",),
}


def needs_of_methods(*methods: str) -> list[str]:
    """The words without which these methods are refused, from their flags."""
    from fedimb import registry

    flags = [registry.flags("strategy", name) for name in methods]
    needed = [f"model.head={one['needs_head']}" for one in flags if one.get("needs_head")]
    needed += [f"loss={one['needs_loss'][0]}" for one in flags if one.get("needs_loss")]
    needed += ["partition=class_incremental" for one in flags if one.get("phased")]
    needed += [f"clients.private={list(one['needs_private'])}" for one in flags if one.get("needs_private")]
    return needed + ["local.augmentation=[{name: noise}]" for one in flags if one.get("two_views")]


def words_of_methods(*methods: str) -> list[str]:
    """Inline runs of these methods, outermost first, as small as they allow."""
    own = [f"strategy.{name}.{word}" for name in methods for word in TINY.get(name, ())]
    run = ["engine=inline", "rounds=4", "data.public=30", f"strategy=[{','.join(methods)}]"]
    return [*run, *own, *needs_of_methods(*methods)]


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
