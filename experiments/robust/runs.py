"""Many small runs in one process, one CSV line each, continued where the last call stopped.

The data: Fashion-MNIST (60,000 + 10,000 pictures of 10 kinds of clothes, below $FEDIMB_DATA_DIR), each picture averaged
over squares of 4 x 4 pixels to 7 x 7, so that a run of 24 clients takes about a second of one core.
"""

import csv
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.data.paths import find_data
from fedimb.errors import FedimbError
from fedimb.rundir import manifest
from fedimb.rundir.result import RunResult
from fedimb.schema import RunConfig
from fedimb.serverapp.launch import launch
from fedimb.serverapp.progress import ProgressBar

NAMES = ("t_shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot")


def shrunk(output: Path, classes: Sequence[int]) -> Path:
    """Write the 7 x 7 pictures of these classes, in this order of ids, as an npz file of the usual layout; once."""
    target = output / f"fashion_7x7_{'_'.join(map(str, classes))}.npz"
    if target.exists():
        return target.resolve()
    source = np.load(find_data("images/fashion_mnist.npz"))
    found = {}
    for part in ("train", "test"):
        x, y = source[f"{part}_images"], source[f"{part}_labels"].ravel()
        kept = np.isin(y, classes)
        small = x[kept].reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).round().astype(np.uint8)
        ids = np.array([list(classes).index(one) for one in y[kept]], np.int64)
        found |= {f"{part}_images": small, f"{part}_labels": ids[:, None]}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.npz")
    np.savez(partial, **found)
    os.replace(partial, target)
    return target.resolve()


def data_words(output: Path, classes: Sequence[int]) -> list[str]:
    """The overrides that read `shrunk`."""
    names = ",".join(NAMES[one] for one in classes)
    return ["data=npz", f"data.source.path={shrunk(output, classes)}", f"data.source.class_names=[{names}]"]


@lru_cache(maxsize=256)
def config_of(words: tuple[str, ...], output: Path) -> RunConfig:
    """A configuration of a run in this process without tracking."""
    always = [
        "engine=inline",
        "tracking=none",
        "evaluation.bootstrap=0",
        f"output_dir={output / 'runs'}",
        "study=robust",
    ]
    return validate(compose([*always, *words]))


def run(config: RunConfig) -> RunResult:
    """One run, without the picture of its partition, which would take as long as the run."""
    manifest._draw_partition = lambda federation, path: None
    return launch(config, progress=ProgressBar(config.rounds, enabled=False), tracked=False)


def fill(
    file: Path,
    columns: Sequence[str],
    keys: Sequence[str],
    wanted: Iterable[Mapping[str, object]],
    do: Callable[[Mapping[str, object]], Mapping[str, object]],
    minutes: float,
) -> list[dict[str, str]]:
    """Do what the file lacks, in order, appending a line as each is done; returns all lines.

    Args:
        columns: of the file.
        keys: the columns that say which run it is; ``wanted`` gives their values.
        do: runs one and returns its other columns; its run folder is removed.
        minutes: no run is begun after that many.
    """
    torch.set_num_threads(1)
    lines = list(csv.DictReader(file.open())) if file.exists() else []
    done = {tuple(line[key] for key in keys) for line in lines}
    stop = time.monotonic() + 60 * minutes
    for one in wanted:
        key = tuple(str(one[name]) for name in keys)
        if key in done or time.monotonic() > stop:
            continue
        done.add(key)
        began = time.process_time()
        line = {**one, **do(one)}
        line["cpu_s"] = f"{time.process_time() - began:.2f}"
        new = not file.exists()
        with file.open("a", newline="") as opened:
            writer = csv.DictWriter(opened, columns, restval="", lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(line)
        lines.append({name: str(line.get(name, "")) for name in columns})
    return lines


def finished(words: Sequence[str], output: Path, seed: int) -> tuple[RunResult | None, str]:
    """The result of a run, or None and why it failed; remove its folder with `discard`."""
    try:
        return run(config_of(tuple(words), output).model_copy(update={"seed": seed})), ""
    except FedimbError as error:
        return None, f"{type(error).__name__}: {str(error).splitlines()[0]}"


def discard(result: RunResult | None) -> None:
    """Remove a run's folder: its line is all that is kept."""
    if result is not None:
        shutil.rmtree(result.folder, ignore_errors=True)
