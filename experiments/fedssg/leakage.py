"""How often does the export gate refuse rightly, and how often wrongly, when a class has few records?

    python experiments/fedssg/leakage.py        # some minutes on one core; writes leakage.csv and leakage_table.txt

Ten classes with 5, 10, 20, 40 or 70 training records (a Latin square over classes and seeds), 100 holdout records and
200 samples each. The truth has to be known, so records are drawn, not photographed: per class a Gaussian with the mean
and covariance of scikit-learn's 8 x 8 digits of that class, floored so that no pixel is constant. ``min_count`` is 1
here: the tests decide alone, with distances of images in place (``moved=False``; gate_moves.py measures copies that
were moved). The attack knows the samples and nothing else: a record's score is minus its distance to
the nearest of them.

Arms, each a way to make the 200 samples of a class:

- fresh: other draws from the truth. Every ``fail`` is wrong; ``undecidable`` says that the gate could not have known.
- tenth: fresh, but every tenth is a training record with a little noise (a tenth of the distance of neighbours).
- five: noisy copies of five records, nothing else. Passing would be wrong.
- fitted: draws from a Gaussian fitted to the training records, shrunk to its diagonal by half. No copies, but it
  follows its records the more, the fewer they are.
- smote: SMOTE with 5 neighbours.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from fedimb.privacy.audit.distances import flatten, nearest_records
from fedimb.privacy.audit.gate import Attack, Batch, GateSettings, audit

HERE = Path(__file__).absolute().parent
COUNTS, HOLDOUT, SAMPLES, SEEDS = (5, 10, 20, 40, 70), 100, 200, 20
FIGURES = ("power", "nearest_ratio", "near_copy_rate", "smote_share", "smote_reconstructed", "mia_auc", "mia_tpr_1fpr")
Rows = NDArray[np.float64]
Draw = Callable[[int], Rows]
Arm = Callable[[Rows, Draw, np.random.Generator], Rows]


def truth(label: int, rng: np.random.Generator) -> Draw:
    """Draws records [n, 1, 8, 8] of a class."""
    digits = load_digits()
    rows = digits.data[digits.target == label] / 16
    mean, covariance = rows.mean(0), np.cov(rows.T) + 1e-3 * np.eye(64)
    root = np.linalg.cholesky(covariance)
    return lambda count: (mean + rng.normal(size=(count, 64)) @ root.T).reshape(count, 1, 8, 8)


def noisy(records: Rows, rows: NDArray[np.int64], rng: np.random.Generator) -> Rows:
    """Copies of these records, off by a tenth of the usual distance between neighbours."""
    known = flatten(records)
    apart = float(np.median(nearest_records(known, known, (np.arange(len(known)),) * 2)[0]))
    noise = rng.normal(size=records[rows].shape)
    noise *= 0.1 * apart / np.linalg.norm(noise.reshape(len(rows), -1), axis=1).reshape(-1, 1, 1, 1)
    copies: Rows = records[rows] + noise
    return copies


def fresh(train: Rows, draw: Draw, rng: np.random.Generator) -> Rows:
    return draw(SAMPLES)


def tenth(train: Rows, draw: Draw, rng: np.random.Generator) -> Rows:
    copies = SAMPLES // 10
    return np.concatenate([draw(SAMPLES - copies), noisy(train, rng.integers(len(train), size=copies), rng)])


def five(train: Rows, draw: Draw, rng: np.random.Generator) -> Rows:
    return noisy(train, rng.integers(5, size=SAMPLES), rng)


def fitted(train: Rows, draw: Draw, rng: np.random.Generator) -> Rows:
    rows = flatten(train)
    covariance = np.cov(rows.T)
    half = (covariance + np.diag(np.diag(covariance))) / 2 + 1e-3 * np.eye(64)
    return (rows.mean(0) + rng.normal(size=(SAMPLES, 64)) @ np.linalg.cholesky(half).T).reshape(SAMPLES, 1, 8, 8)


def smote(train: Rows, draw: Draw, rng: np.random.Generator) -> Rows:
    start = rng.integers(len(train), size=SAMPLES)
    apart = np.linalg.norm(flatten(train)[:, None] - flatten(train), axis=2)
    near = apart.argsort(1)[:, 1:6]
    end = near[start, rng.integers(near.shape[1], size=SAMPLES)]
    made: Rows = train[start] + rng.random((SAMPLES, 1, 1, 1)) * (train[end] - train[start])
    return made


ARMS: dict[str, Arm] = {"fresh": fresh, "tenth": tenth, "five": five, "fitted": fitted, "smote": smote}


def one_seed(seed: int, arm: str) -> list[dict[str, object]]:
    """A line per class."""
    rng = np.random.default_rng([seed, list(ARMS).index(arm)])
    parts: list[tuple[Rows, Rows, Rows]] = []
    for label in range(10):
        draw = truth(label, rng)
        train = draw(COUNTS[(label + seed) % len(COUNTS)])
        parts.append((train, draw(HOLDOUT), ARMS[arm](train, draw, rng)))
    train, holdout, samples = (
        Batch(
            np.concatenate([part[which] for part in parts]).astype(np.float32),
            np.concatenate([np.full(len(part[which]), label, np.int64) for label, part in enumerate(parts)]),
        )
        for which in range(3)
    )

    def attack(x: NDArray[np.float32], y: NDArray[np.int64], d: NDArray[np.int64]) -> Rows:
        return -nearest_records(flatten(x), flatten(samples.of(int(y[0])).x))[0]

    return judged(arm, seed, samples, train, holdout, attack, rng)


def judged(
    arm: str, seed: int, samples: Batch, train: Batch, holdout: Batch, attack: Attack, rng: np.random.Generator
) -> list[dict[str, object]]:
    """A line per class."""
    found = audit(samples, train, holdout, GateSettings(min_count=1, moved=False), rng, attack)
    lines: list[dict[str, object]] = []
    for label, verdict in found.verdicts.items():
        line: dict[str, object] = {"arm": arm, "seed": seed, "class": label, "records": int(verdict.figures["count"])}
        line |= {"state": verdict.state, "reasons": "; ".join(verdict.reasons)}
        lines.append(line | {name: f"{verdict.figures[name]:.4g}" for name in FIGURES})
    return lines


def write(lines: list[dict[str, object]], to: Path, name: str) -> None:
    """The lines, and their table, which is printed too."""
    with (to / f"{name}.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(lines)
    (to / f"{name}_table.txt").write_text(table(lines))
    print(table(lines), end="")


def table(lines: list[dict[str, object]]) -> str:
    """Per arm and number of records: shares of verdicts, means of figures."""
    text = ["arm     records  verdicts   fail  undecidable  pass | " + "  ".join(FIGURES)]
    for arm in dict.fromkeys(str(line["arm"]) for line in lines):
        for count in COUNTS:
            own = [line for line in lines if (line["arm"], line["records"]) == (arm, count)]
            states = [line["state"] for line in own]
            shares = [states.count(state) / len(own) for state in ("fail", "undecidable", "pass")]
            means = [np.array([float(str(line[name])) for line in own]) for name in FIGURES]
            shown = [
                f"{values[~np.isnan(values)].mean() if not np.isnan(values).all() else np.nan:.2f}".rjust(len(name))
                for name, values in zip(FIGURES, means, strict=True)
            ]
            text.append(
                f"{arm:8}{count:7}{len(own):10}{shares[0]:7.2f}{shares[1]:13.2f}{shares[2]:6.2f} | " + "  ".join(shown)
            )
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=HERE)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args = parser.parse_args()
    lines = [line for arm in ARMS for seed in range(args.seeds) for line in one_seed(seed, arm)]
    write(lines, args.to, "leakage")


if __name__ == "__main__":
    main()
