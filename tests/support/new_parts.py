"""Packages that ``fedimb new`` writes: a name for each kind, the one its page in docs uses, and a run that uses it."""

import sys
import tomllib
from pathlib import Path

NAMES = {
    "loss": "smooth_ce",
    "query": "power_entropy",
    "aggregator": "geometric_median",
    "optimizer": "server_nesterov",
    "source": "breast_cancer",
    "sampler": "class_power",
    "model": "norm_mlp",
    "generator": "row_flow",
    "strategy": "fresh_idea",
}

TABLE = ("data=synthetic_table", "data.source.rows=600", "data.source.features=6")
SMALL = ("engine=inline", "tracking=none", "clients.count=3", "rounds=2", "local.epochs=1", "evaluation.bootstrap=0")
"""Settings of a run that takes half a second."""

USES = {
    "loss": (*TABLE, "loss=smooth_ce"),
    "query": (
        *TABLE,
        "strategy=active",
        "strategy.active.query={name: power_entropy}",
        "strategy.active.cycles=2",
        "strategy.active.budget=5",
        "strategy.active.local_epochs=2",
    ),
    "aggregator": (*TABLE, "aggregator=geometric_median"),
    "optimizer": (*TABLE, "aggregator=server_nesterov"),
    "source": ("data=breast_cancer", "data.source.columns=means"),
    "sampler": (*TABLE, "sampler=class_power"),
    "model": (*TABLE, "model=norm_mlp"),
    "generator": (
        *TABLE,
        "strategy=fedssg",
        "strategy.fedssg.generator={name: row_flow, width: 8}",
        "strategy.fedssg.training.steps=2",
        "strategy.fedssg.pretrain=1",
        "data.public=20",
    ),
    "strategy": (*TABLE, "strategy=fresh_idea"),
}


def pretend_installed(folder: Path) -> None:
    """Put the metadata that pip would write from the folder's pyproject.toml beside the package."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    about = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"]
    lines = [
        line for group, points in groups.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")


def forget(package: str) -> None:
    """Drop a package's modules, so that a later test may have one of the same name."""
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[module]
