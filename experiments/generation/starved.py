"""Starved classes filled up by a generator, by SMOTE, by copies, or not at all: what registered.yaml asks.

    python experiments/generation/starved.py --dry-run    # the cells that rows.csv lacks, and about how long they take
    python experiments/generation/starved.py              # runs them; rows.csv grows by cells, a stopped run goes on
    python experiments/generation/starved.py --summary    # statistics.csv from rows.csv

MNIST lies below $FEDIMB_DATA_DIR. A cell is (n, arm, seed). All arms of an n and seed have the same real rows; a
generator is trained on all of them, class-balanced. Trained generators are cached ($FEDIMB_CACHE_DIR).
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fedimb.data.paths import find_data
from fedimb.evaluation.bias_gap import bias_gap, cohens_d
from fedimb.evaluation.intervals import t_interval
from fedimb.evaluation.verdict import verdict
from fedimb.generation.examples import Examples
from fedimb.generation.generator_cache import GeneratorCache, GeneratorConfig
from fedimb.generation.quality import copy_gate
from fedimb.generation.smote import smote
from fedimb.generation.training import Training, train_generator

HERE = Path(__file__).absolute().parent
REGISTERED: Mapping[str, Any] = yaml.safe_load((HERE / "registered.yaml").read_text(encoding="utf-8"))
CLASSES, SHAPE = 10, (1, 8, 8)
COLUMNS = ("n", "arm", "seed", "macro_recall", "starved_recall", "bias_gap", "copied", "cpu_s")
Rows = tuple[Tensor, Tensor]
Cell = tuple[int, str, int]


@dataclass(frozen=True)
class Task:
    """The rows of one n and seed.

    Attributes:
        x, y: real rows to train on, [m, 1, 8, 8] float32 in 0..1 and [m].
        starved: class ids.
        wanted: [10] rows to add to each class.
    """

    x: Tensor
    y: Tensor
    starved: tuple[int, ...]
    wanted: Tensor


@lru_cache(maxsize=1)
def mnist() -> tuple[Rows, Rows]:
    """((x, y) to draw from, (x, y) of the official test), images of 8 x 8."""
    with np.load(find_data("mnist.npz")) as archive:
        sides = [(archive[f"{side}_images"], archive[f"{side}_labels"][:, 0]) for side in ("train", "test")]
    pool, test = ((shrunk(x), torch.from_numpy(y.astype(np.int64))) for x, y in sides)
    return pool, test


def shrunk(x: NDArray[np.uint8]) -> Tensor:
    """[n, 28, 28] grey levels -> float32 [n, 1, 8, 8] in 0..1: a margin of two, then means of 4 x 4 pixels."""
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2))).astype(np.float32) / 255
    return torch.from_numpy(padded.reshape(len(x), 8, 4, 8, 4).mean((2, 4))[:, None])


def drawn(y: Tensor, sizes: Tensor, rng: np.random.Generator) -> Tensor:
    """Positions of ``sizes`` [10] rows of each class; the first of a class are the same for any size."""
    parts = []
    for c in range(CLASSES):
        members = np.flatnonzero(y.numpy() == c)
        parts.append(rng.permutation(members)[: int(sizes[c])])
    return torch.from_numpy(np.concatenate(parts))


def task_of(pool: Rows, n: int, seed: int) -> Task:
    """The real rows of a cell."""
    rng = np.random.default_rng([seed, 1])
    starved = tuple(sorted(rng.permutation(CLASSES)[: REGISTERED["starved"]].tolist()))
    sizes = torch.full((CLASSES,), REGISTERED["full"])
    sizes[list(starved)] = n
    rows = drawn(pool[1], sizes, rng)
    return Task(pool[0][rows], pool[1][rows], starved, REGISTERED["full"] - sizes)


def added(arm: str, task: Task, seed: int, steps: Mapping[str, int]) -> Rows:
    """The rows that an arm adds to the starved classes."""
    y = torch.arange(CLASSES).repeat_interleave(task.wanted)
    if arm in ("none", "la_post"):
        return task.x[:0], y[:0]
    if arm == "smote":
        return smote(task.x, task.y, task.wanted, torch.Generator().manual_seed(seed))
    with tempfile.TemporaryDirectory() as folder:
        made = cache_of(arm, task, seed, steps, Path(folder))
        return made.samples(y, torch.zeros_like(y), seed).reshape(-1, *SHAPE), y


def cache_of(arm: str, task: Task, seed: int, steps: Mapping[str, int], folder: Path) -> GeneratorCache:
    """An arm's generator, of the task's rows; the file of ``copies`` is written to the folder."""
    x = task.x.flatten(1) if arm == "t_vae" else task.x
    words, training = {"name": arm}, Training(steps=steps.get(arm, 1))
    if arm == "copies":
        words = {"name": "external_dir", "path": str(copies(task, folder))}
    names = tuple(map(str, range(CLASSES)))
    config = GeneratorConfig(words, training, CLASSES, 1, tuple(x.shape[1:]), names, seed)
    return GeneratorCache(config, Examples(x, task.y, torch.zeros_like(task.y)))


def copies(task: Task, folder: Path) -> Path:
    """A file of the starved classes' own rows, as often as they are wanted."""
    own = [(task.y == c).nonzero().flatten() for c in task.starved]
    often = [-(-int(task.wanted[c]) // len(rows)) for c, rows in zip(task.starved, own, strict=True)]
    chosen = torch.cat([rows.repeat(times) for rows, times in zip(own, often, strict=True)])
    np.savez(folder / "copies.npz", x=task.x[chosen].numpy(), y=task.y[chosen].numpy())
    return folder / "copies.npz"


def recalls(arm: str, x: Tensor, y: Tensor, test: Rows) -> NDArray[np.float64]:
    """[10] recall on the test rows of the classifier that these rows teach."""
    model = LogisticRegression(max_iter=1000).fit(x.flatten(1).numpy(), y.numpy())
    scores = model.decision_function(test[0].flatten(1).numpy())
    if arm == "la_post":
        scores = scores - np.log(np.bincount(y.numpy(), minlength=CLASSES) / len(y))
    hit = scores.argmax(1) == test[1].numpy()
    return np.array([hit[test[1].numpy() == c].mean() for c in range(CLASSES)])


def measured(cell: Cell, pool: Rows, test: Rows, steps: Mapping[str, int]) -> dict[str, Any]:
    """One line of rows.csv."""
    n, arm, seed = cell
    task, start = task_of(pool, n, seed), time.process_time()
    x, y = added(arm, task, seed, steps)
    recall = recalls(arm, torch.cat([task.x, x]), torch.cat([task.y, y]), test)
    new = copy_gate(x.flatten(1), y, task.x.flatten(1), task.y, CLASSES) if len(y) else None
    figures = (
        recall.mean(),
        recall[list(task.starved)].mean(),
        bias_gap(recall, task.starved),
        np.nan if new is None else 1 - float(new.double().mean()),
        time.process_time() - start,
    )
    rounded = (round(float(value), 4) for value in figures)
    return {"n": n, "arm": arm, "seed": seed} | dict(zip(COLUMNS[3:], rounded, strict=True))


def cells() -> Iterator[Cell]:
    """All cells, seed by seed, so that a stopped run has whole seeds."""
    for seed in range(REGISTERED["seeds"]):
        for n in REGISTERED["rows"]:
            for arm in REGISTERED["arms"]:
                yield n, arm, seed


def read_rows(file: Path) -> list[dict[str, str]]:
    """Lines of a CSV; none if it is not there."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def missing(rows: list[dict[str, str]]) -> list[Cell]:
    """Cells without a line."""
    done = {(int(row["n"]), row["arm"], int(row["seed"])) for row in rows}
    return [cell for cell in cells() if cell not in done]


def price(todo: list[Cell], pool: Rows) -> float:
    """About how many CPU seconds the cells take: steps and samples of each generator as timed here, and classifiers."""
    task, seconds = task_of(pool, REGISTERED["rows"][0], 0), 2.0 * len(todo)
    for arm, steps in REGISTERED["generators"].items():
        due = [n for n, name, _ in todo if name == arm]
        if not due:
            continue
        cache = cache_of(arm, task, 0, {}, HERE)
        generator = cache.config.build()
        train_generator(generator, cache.examples, Training(steps=2), 0)  # imports, and what a first step alone costs
        start = time.process_time()
        train_generator(generator, cache.examples, Training(steps=10), 0)
        a_step, start = (time.process_time() - start) / 10, time.process_time()
        y = torch.arange(CLASSES).repeat_interleave(10)
        generator.sample(y, torch.zeros_like(y), torch.Generator().manual_seed(0))
        a_row = (time.process_time() - start) / len(y)
        rows = REGISTERED["starved"] * sum(REGISTERED["full"] - n for n in due)
        seconds += len(due) * steps * a_step + rows * a_row
    return seconds


def summary(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """For every n and arm: means over seeds; against ``none`` and ``la_post``: paired differences, and Cohen's d.

    ``verdict`` is that of a registered contrast in the primary outcome, by its interval and the margin; else empty.
    """
    value = {(int(r["n"]), r["arm"], int(r["seed"])): r for r in rows}
    seeds = sorted({seed for _, _, seed in value})
    registered = [tuple(pair) for pair in REGISTERED["contrasts"]]
    level = 1 - 0.05 / (len(registered) * len(REGISTERED["rows"]))
    lines = []
    for n in REGISTERED["rows"]:
        for arm in REGISTERED["arms"]:
            own = {score: [float(value[n, arm, s][score]) for s in seeds] for score in COLUMNS[3:7]}
            line: dict[str, Any] = {"n": n, "arm": arm, "seeds": len(seeds)}
            line |= {score: float(np.mean(values)) for score, values in own.items()}
            for other in ("none", "la_post"):
                for score in ("macro_recall", "bias_gap"):
                    theirs = [float(value[n, other, s][score]) for s in seeds]
                    gain = np.subtract(own[score], theirs)
                    mean, low, high = t_interval(gain, level if (arm, other) in registered else 0.95)
                    key = f"{score}_less_{other}"
                    line |= {key: mean, f"{key}_low": low, f"{key}_high": high}
                    line[f"d_{score}_{other}"] = cohens_d(own[score], theirs)
                    if (arm, other) in registered and score == REGISTERED["primary_outcome"]:
                        line["verdict"] = verdict(low, high, REGISTERED["margin"])
            line.setdefault("verdict", "")
            lines.append({key: round(v, 4) if isinstance(v, float) else v for key, v in line.items()})
    return lines


def write_rows(file: Path, lines: list[dict[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="say what is missing and about how long it takes")
    parser.add_argument("--summary", action="store_true", help="write statistics.csv from rows.csv")
    parser.add_argument("--to", type=Path, default=HERE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = read_rows(args.to / "rows.csv")
    todo = missing(rows)
    if args.summary:
        if todo:
            parser.error(f"{len(todo)} of {len(list(cells()))} cells have not been run: run them first")
        write_rows(args.to / "statistics.csv", summary(rows))
        return
    pool, test = mnist()
    if args.dry_run:
        print(f"{len(todo)} of {len(list(cells()))} cells to run, about {price(todo, pool) / 60:.0f} core-minutes here")
        return
    for cell in todo:
        line = measured(cell, pool, test, REGISTERED["generators"])
        new = not (args.to / "rows.csv").exists()
        with (args.to / "rows.csv").open("a", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(line)
        print(*line.values(), flush=True)


if __name__ == "__main__":
    main()
