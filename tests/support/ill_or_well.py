"""A small table on disk."""

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
