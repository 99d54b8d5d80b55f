"""Which classes a diffusion model learns, and which by heart, on unequal classes: class-balanced and plain batches.

    python experiments/generation/curves.py --dry-run    # the trainings that curves.csv lacks, about how long they take
    python experiments/generation/curves.py              # runs them; both files grow training by training

After "Interplay of Data Structure and Imbalance" (arXiv 2605.06367); settings in registered.yaml. curves.csv has a line
a step and class: its rows, its own variance, the loss of rows it learns from and of others, and how often the former is
lower (`fedimb.generation.class_curves`). made.csv has a line a class at the end: how many of its samples lie as near to
a row that was learned as the closest 5 % of these rows lie to each other.
"""

import argparse
import csv
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from starved import CLASSES, HERE, REGISTERED, SHAPE, Rows, drawn, mnist, read_rows

from fedimb.generation.class_curves import ClassCurves, class_variances
from fedimb.generation.examples import Examples
from fedimb.generation.quality import copy_gate
from fedimb.generation.training import Training, train_generator
from fedimb.registry import build

PLAN: dict[str, Any] = REGISTERED["curves"]
Job = tuple[int, str]


def unequal(pool: Rows, seed: int) -> tuple[Examples, Examples]:
    """(rows to learn from, held-out rows), sizes falling exponentially over classes in an order drawn by the seed."""
    rng = np.random.default_rng([seed, 2])
    ranks = rng.permutation(CLASSES)
    sizes = np.round(PLAN["largest"] * PLAN["imbalance_factor"] ** (-ranks / (CLASSES - 1))).astype(np.int64)
    rows = drawn(pool[1], torch.from_numpy(sizes + PLAN["held_out"]), rng)
    y = pool[1][rows]
    place = torch.cat([torch.arange(int((y == c).sum())) for c in range(CLASSES)])  # rows come by class
    own = place < torch.from_numpy(sizes)[y]
    return tuple(  # type: ignore[return-value]
        Examples(pool[0][rows[part]], y[part], torch.zeros_like(y[part])) for part in (own, ~own)
    )


def run(job: Job, pool: Rows, plan: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines of curves.csv and of made.csv of one training."""
    seed, balance = job
    learned, held_out = unequal(pool, seed)
    sizes, variances = torch.bincount(learned.y, minlength=CLASSES), class_variances(learned, CLASSES)
    generator = build("generator", "ddpm", {"n_classes": CLASSES, "n_domains": 1, "shape": SHAPE, "seed": seed})
    curves = ClassCurves(generator, learned, held_out, plan["every"], seed)
    train_generator(generator, learned, Training(steps=plan["steps"], balance=balance), seed, progress=curves)
    about = {"seed": seed, "balance": balance}
    lines = [
        about | asdict(point) | {"rows": int(sizes[point.label]), "variance": float(variances[point.label])}
        for point in curves.points
    ]
    y = torch.arange(CLASSES).repeat_interleave(plan["samples"])
    x = generator.sample(y, torch.zeros_like(y), torch.Generator().manual_seed(seed))
    new = copy_gate(x.flatten(1), y, learned.x.flatten(1), learned.y, CLASSES)
    made = [
        about | {"label": c, "rows": int(sizes[c]), "copied": 1 - float(new[y == c].double().mean())}
        for c in range(CLASSES)
    ]
    return lines, made


def missing(file: Path) -> list[Job]:
    """Trainings without lines."""
    done = {(int(row["seed"]), row["balance"]) for row in read_rows(file)}
    return [(s, b) for s in range(PLAN["seeds"]) for b in PLAN["balance"] if (s, b) not in done]


def price(todo: list[Job], pool: Rows) -> float:
    """About how many CPU seconds the trainings take, from a short one."""
    if not todo:
        return 0.0
    seconds = []
    for steps in (2, 2, 12):  # the first for imports
        start = time.process_time()
        run(todo[0], pool, PLAN | {"steps": steps, "every": steps, "samples": 1})
        seconds.append(time.process_time() - start)
    a_step = (seconds[2] - seconds[1]) / 10
    return len(todo) * (a_step * PLAN["steps"] + seconds[1] * (PLAN["steps"] / PLAN["every"] + 1))


def append(file: Path, lines: list[dict[str, Any]]) -> None:
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        if new:
            writer.writeheader()
        for line in lines:
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="say what is missing and about how long it takes")
    parser.add_argument("--to", type=Path, default=HERE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    todo, (pool, _) = missing(args.to / "curves.csv"), mnist()
    if args.dry_run:
        print(f"{len(todo)} trainings to run, about {price(todo, pool) / 60:.0f} core-minutes here")
        return
    for job in todo:
        lines, made = run(job, pool, PLAN)
        append(args.to / "made.csv", made)
        append(args.to / "curves.csv", lines)  # last: a training with these lines is done
        print(*job, f"{np.mean([line['copied'] for line in made]):.3f} of samples near a row", flush=True)


if __name__ == "__main__":
    main()
