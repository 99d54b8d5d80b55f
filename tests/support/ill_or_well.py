"""A small table on disk, and a study of such tables."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np


def write_table(path: Path, rows: int, seed: int) -> Path:
    """A table of four numbers and a label, of which one row in five is ``ill``."""
    rng = np.random.default_rng(seed)
    ill = np.arange(rows) % 5 == 0
    x = rng.normal(size=(rows, 4)) + ill[:, None] * np.array([1.5, -1.0, 0.5, 0.0]) + [0, 10, -3, 100]
    lines = ["age,dose,delta,pressure,label"]
    lines += [",".join([*(f"{v:.4f}" for v in row), "ill" if one else "well"]) for row, one in zip(x, ill, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def small_words(files: Mapping[str, Path]) -> list[str]:
    """Settings of a study of one table per site: a logistic model, two rounds, nobody but the sites scores."""
    both = ",".join(f"{site}: '{path}'" for site, path in files.items())
    data = ["data=tabular_csv", f"data.source.files={{{both}}}", "data.source.target=label"]
    data += ["data.source.classes=[ill,well]", "data.source.indicators=[]", "partition=by_column"]
    data += ["data.test={name: none}", "data.validation=0.25", "model=logistic", "rounds=2", "local.epochs=1"]
    return [*data, "local.lr=0.05", "evaluation.bootstrap=0", "engine=inline"]
