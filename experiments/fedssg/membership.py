"""Can it be told which rows a generator learned from? An attack with 15 shadow generators, by rows of the class.

    python experiments/fedssg/membership.py              # appends to membership_losses.csv; continues where it stopped
    python experiments/fedssg/membership.py --table      # membership.csv and membership_table.txt from what is there

The likelihood-ratio attack (LiRA) of Carlini et al., "Membership inference attacks from first principles", S&P 2022, on
generators: 16 are trained, each on a random half of every class's rows; each is attacked with the other 15. For a row,
those that had it give a normal distribution of -log loss, those that had it not another, and the score is the log
ratio of the two at the attacked generator's value. Means are of the row, standard deviations of the whole class, as
some seven generators are too few for one of each row. Noise and noise levels are the same for all generators.

scikit-learn's digits, 8 x 8; a class has 10, 20, 40, 80 or 140 rows, half of which teach (which class has how many
differs between seeds); `table_flow` (of the 64 pixels) and `flow` with default settings, class-balanced batches.

A row is scored 16 times, so intervals resample rows (1,000 draws), not scores. The true-positive rate at 1 % false
positives is given only where there are 1,000 scores of non-members or more: of fewer the threshold is known too badly.
Two controls must give an AUC of .5: members of one half of the rows against members of the other, and non-members
likewise. ``plain`` is the attack without shadows: the loss itself, as the export gate uses it.
"""

import argparse
import csv
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from leakage import HERE
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.datasets import load_digits

from fedimb import registry
from fedimb.generation.examples import Examples
from fedimb.generation.training import Training, train_generator

GENERATORS, SEEDS = 16, 3
COUNTS = (5, 10, 20, 40, 70)
TAUGHT = ((5, 5, 5, 5, 10, 10, 20, 20, 40, 70), (5, 5, 5, 5, 10, 10, 20, 20, 40, 70), (5, 10) * 5)
"""Rows of each class that teach, by seed: more classes of few rows, so that these too have 1,000 scores of
non-members."""
LEVELS, REPEATS = (0.2, 0.4, 0.6), 4
LEAST, FPR, DRAWS = 1000, 0.01, 1000
ARMS: dict[str, tuple[int, ...]] = {"table_flow": (64,), "flow": (1, 8, 8)}
"""Generator -> shape of the rows it is given."""
FIELDS = ("arm", "seed", "generator", "class", "learned", "members", "losses")
Floats = NDArray[np.float64]
Key = tuple[str, int, int, int]


def rows_of(seed: int, label: int) -> NDArray[np.int64]:
    """Positions of the class's rows among the digits: twice as many as teach."""
    rows = np.random.default_rng([seed, label]).permutation(np.flatnonzero(load_digits().target == label))
    return rows[: 2 * TAUGHT[seed][(label + 3 * seed) % 10]]


def one_generator(arm: str, seed: int, number: int, steps: int) -> list[dict[str, object]]:
    """A line per class: which of its rows taught, and the loss of each."""
    digits = load_digits()
    x = torch.from_numpy((digits.images / 16).astype(np.float32)).reshape(-1, *ARMS[arm])
    rng = np.random.default_rng([seed, 1000 + number])
    rows = [rows_of(seed, label) for label in range(10)]
    members = []
    for own in rows:
        taught = np.zeros(len(own), bool)
        taught[rng.permutation(len(own))[: len(own) // 2]] = True
        members.append(taught)
    learned = np.concatenate([own[taught] for own, taught in zip(rows, members, strict=True)])
    y = torch.from_numpy(digits.target[learned].astype(np.int64))
    about = {"n_classes": 10, "n_domains": 1, "shape": ARMS[arm], "class_names": tuple("0123456789")}
    generator = registry.build("generator", arm, about | {"seed": 100 * seed + number})
    train_generator(generator, Examples(x[learned], y, torch.zeros_like(y)), Training(steps=steps), 100 * seed + number)
    lines: list[dict[str, object]] = []
    for label, (own, taught) in enumerate(zip(rows, members, strict=True)):
        asked = x[own], torch.full((len(own),), label), torch.zeros(len(own), dtype=torch.int64)
        total = torch.zeros(len(own))
        with torch.no_grad():
            for level in LEVELS:
                for repeat in range(REPEATS):
                    noise = torch.Generator().manual_seed(repeat)
                    total += generator.losses_at(*asked, level, noise)
        lines.append(
            dict(
                zip(
                    FIELDS,
                    (
                        arm,
                        seed,
                        number,
                        label,
                        len(own) // 2,
                        "".join(str(int(one)) for one in taught),
                        " ".join(f"{value:.4g}" for value in (total / len(LEVELS) / REPEATS).tolist()),
                    ),
                    strict=True,
                )
            )
        )
    return lines


def auc(members: Floats, others: Floats) -> float:
    """Probability that a member scores higher; ties count half."""
    ranks = rankdata(np.concatenate([members, others]))[: len(members)]
    return float((ranks.sum() - len(members) * (len(members) + 1) / 2) / (len(members) * len(others)))


def tpr(members: Floats, others: Floats) -> float:
    """Share of members above the threshold that at most 1 % of the non-members exceed."""
    rank = int(FPR * len(others) + 1e-9) + 1
    return float((members > np.partition(others, len(others) - rank)[len(others) - rank]).mean())


def scores(losses: Floats, taught: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
    """Likelihood ratios of one class, [16, rows], and which of them can be computed.

    Args:
        losses, taught: [16, rows].
    """
    value = -np.log(losses)
    ratio, known = np.full(value.shape, np.nan), np.zeros(value.shape, bool)
    for target in range(len(value)):
        others = np.arange(len(value)) != target
        own, had = value[others], taught[others]
        counts = had.sum(0), (~had).sum(0)
        usable = (counts[0] >= 2) & (counts[1] >= 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(had, own, 0).sum(0) / counts[0], np.where(had, 0, own).sum(0) / counts[1]
        spread = []
        for mean, mask, count in ((means[0], had, counts[0]), (means[1], ~had, counts[1])):
            squares = np.where(mask, (own - mean) ** 2, 0)[:, usable].sum()
            spread.append(np.sqrt(squares / (count[usable] - 1).sum()))
        logs = [
            -0.5 * ((value[target] - mean) / one) ** 2 - np.log(one) for mean, one in zip(means, spread, strict=True)
        ]
        ratio[target, usable], known[target] = (logs[0] - logs[1])[usable], usable
    return ratio, known


def read(path: Path) -> dict[Key, dict[str, str]]:
    """Lines by (arm, seed, generator, class)."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {
            (line["arm"], int(line["seed"]), int(line["generator"]), int(line["class"])): line
            for line in csv.DictReader(file)
        }


def by_size(found: dict[Key, dict[str, str]], arm: str) -> dict[int, list[tuple[int, Floats, Floats, NDArray]]]:
    """Rows learned of the class -> (seed, ratios [16, rows], -losses [16, rows], taught) of each whole class."""
    sizes: dict[int, list[tuple[int, Floats, Floats, NDArray]]] = {count: [] for count in COUNTS}
    for seed in sorted({key[1] for key in found if key[0] == arm}):
        for label in range(10):
            lines = [found.get((arm, seed, number, label)) for number in range(GENERATORS)]
            if None in lines:
                continue
            losses = np.array([[float(one) for one in line["losses"].split()] for line in lines if line])
            taught = np.array([[one == "1" for one in line["members"]] for line in lines if line])
            ratio, known = scores(losses, taught)
            ratio[~known] = np.nan
            sizes[int(lines[0]["learned"])].append((seed, ratio, -losses, taught))  # type: ignore[index]
    return sizes


def figures(ratios: Floats, taught: NDArray[np.bool_], half: NDArray[np.bool_]) -> dict[str, float]:
    """AUC, rate and the controls of scores [16, rows]; ``half`` of the rows [rows] are compared with the others."""
    known = ~np.isnan(ratios)
    members, others = ratios[known & taught], ratios[known & ~taught]
    split = [
        (ratios[:, half][(known & mask)[:, half]], ratios[:, ~half][(known & mask)[:, ~half]])
        for mask in (taught, ~taught)
    ]
    return {
        "members": float(len(members)),
        "non_members": float(len(others)),
        "auc": auc(members, others),
        "tpr": tpr(members, others),
        "control_members": auc(*split[0]),
        "control_non_members": auc(*split[1]),
    }


def joined(parts: list[tuple[int, Floats, Floats, NDArray]]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Ratios, plain scores and taught of several classes, [16, all rows]; plain scores are centred by class."""
    plain = [one[2] - one[2].mean() for one in parts]
    return np.hstack([one[1] for one in parts]), np.hstack(plain), np.hstack([one[3] for one in parts])


def table(path: Path, to: Path) -> None:
    """Write the figures with their intervals."""
    lines = []
    found = read(path)
    for arm, (count, parts) in ((name, one) for name in ARMS for one in by_size(found, name).items()):
        if not parts:
            continue
        ratios, plain, taught = joined(parts)
        rng = np.random.default_rng(count)
        half = rng.permutation(ratios.shape[1]) < ratios.shape[1] // 2
        point = figures(ratios, taught, half) | {"plain_auc": auc(plain[taught], plain[~taught])}
        point["tpr"] = point["tpr"] if point["non_members"] >= LEAST else np.nan
        again: dict[str, list[float]] = {name: [] for name in point}
        for _ in range(DRAWS):
            rows = rng.integers(ratios.shape[1], size=ratios.shape[1])
            drawn = figures(ratios[:, rows], taught[:, rows], half[rows])
            drawn["plain_auc"] = auc(plain[:, rows][taught[:, rows]], plain[:, rows][~taught[:, rows]])
            for name, value in drawn.items():
                again[name].append(value)
        line: dict[str, object] = {"arm": arm, "learned": count, "classes": len(parts), "rows": ratios.shape[1]}
        line |= {name: int(point[name]) for name in ("members", "non_members")}
        for name in ("auc", "tpr", "plain_auc", "control_members", "control_non_members"):
            low, high = np.nanquantile(again[name], (0.025, 0.975)) if not np.isnan(point[name]) else (np.nan, np.nan)
            line |= {name: f"{point[name]:.4f}", f"{name}_low": f"{low:.4f}", f"{name}_high": f"{high:.4f}"}
        lines.append(line)
    if not lines:
        raise SystemExit("no class has been scored by all 16 generators yet")
    with (to / "membership.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(lines)
    text = [
        "generator   rows learned  classes  non-member scores | AUC                TPR at 1 % FPR     plain AUC"
        "          control members    control non-members"
    ]
    for line in lines:
        shown = [
            "{:.2f} [{:.2f}, {:.2f}]".format(*(float(str(line[name + end])) for end in ("", "_low", "_high")))
            for name in ("auc", "tpr", "plain_auc", "control_members", "control_non_members")
        ]
        shown = [("too few scores" if "nan" in one else one).ljust(17) for one in shown]
        text.append(
            f"{line['arm']!s:10}{line['learned']!s:>14}{line['classes']!s:>9}{line['non_members']!s:>19} | "
            + "  ".join(shown)
        )
    (to / "membership_table.txt").write_text("\n".join(one.rstrip() for one in text) + "\n")
    print("\n".join(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=HERE)
    parser.add_argument("--seeds", type=int, default=SEEDS, choices=range(1, SEEDS + 1))
    parser.add_argument("--generators", type=int, nargs=2, default=(0, GENERATORS), help="from, to (exclusive)")
    parser.add_argument("--steps", type=int, default=Training().steps, help="of training")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--table", action="store_true", help="only write the table of what has been measured")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = args.to / "membership_losses.csv"
    if not args.table:
        known = read(path)
        if not path.exists():
            path.write_text(",".join(FIELDS) + "\n")
        for arm, seed, number in itertools.product(args.arms, range(args.seeds), range(*args.generators)):
            if all((arm, seed, number, label) in known for label in range(10)):
                continue
            start = time.monotonic()
            lines = one_generator(arm, seed, number, args.steps)
            with path.open("a", newline="") as file:
                csv.DictWriter(file, FIELDS, lineterminator="\n").writerows(lines)
            print(f"{arm}, seed {seed}, generator {number}: {time.monotonic() - start:.0f} s", flush=True)
    table(path, args.to)


if __name__ == "__main__":
    main()
