"""Which classes of real generators pass the export gate, by how many records of the class they were trained on?

    python experiments/fedssg/leakage_generators.py     # writes leakage_generators.csv and leakage_generators_table.txt

scikit-learn's digits: per class 100 records are kept apart from the generator, and 5, 10, 20, 40 or 70 others given to
it (a Latin square over classes and seeds). One generator of all ten classes, default settings, class-balanced batches:
a class of five records is shown as often as one of seventy. 200 samples of each class; ``min_count`` is 1, the tests
decide alone. The attack asks the generator for its losses at the three noise levels a site would use.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from leakage import COUNTS, HERE, HOLDOUT, SAMPLES, judged, write
from sklearn.datasets import load_digits

from fedimb import registry
from fedimb.generation.examples import Examples
from fedimb.generation.export import MembershipAttack, as_batch, as_examples
from fedimb.generation.training import Training, train_generator
from fedimb.privacy.audit.gate import Batch

ARMS, SEEDS = ("flow", "ddpm"), 10


def one_seed(seed: int, arm: str, steps: int) -> list[dict[str, object]]:
    """A line per class."""
    digits = load_digits()
    x = (digits.images[:, None] / 16).astype(np.float32)
    rng = np.random.default_rng(seed)
    given, kept = [], []
    for label in range(10):
        rows = rng.permutation(np.flatnonzero(digits.target == label))
        kept.append(rows[:HOLDOUT])
        given.append(rows[HOLDOUT : HOLDOUT + COUNTS[(label + seed) % len(COUNTS)]])
    train, holdout = (
        Batch(x[rows], digits.target[rows].astype(np.int64)) for rows in (np.concatenate(given), np.concatenate(kept))
    )
    about = {"n_classes": 10, "n_domains": 1, "shape": (1, 8, 8), "class_names": tuple("0123456789"), "seed": seed}
    torch.manual_seed(seed)
    generator = registry.build("generator", arm, about)
    train_generator(generator, as_examples(train), Training(steps=steps), seed)
    y = torch.arange(10).repeat_interleave(SAMPLES)
    d = torch.zeros_like(y)
    made = generator.sample(y, d, torch.Generator().manual_seed(seed))
    return judged(arm, seed, as_batch(Examples(made, y, d)), train, holdout, MembershipAttack(generator, seed), rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=HERE)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=Training().steps, help="of training")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for seed in range(args.seeds):
        for arm in ARMS:
            start = time.monotonic()
            lines += one_seed(seed, arm, args.steps)
            print(f"{arm}, seed {seed}: {time.monotonic() - start:.0f} s", flush=True)
    lines.sort(key=lambda line: (ARMS.index(str(line["arm"])), line["seed"]))
    write(lines, args.to, "leakage_generators")


if __name__ == "__main__":
    main()
