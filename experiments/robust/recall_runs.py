"""Recall of every class in every round, of clean runs and of runs in which labels of one class are flipped half-way.

    python experiments/robust/recall_runs.py                # repeat the command to continue
    python experiments/robust/recall_runs.py --minutes 30   # as many as fit

Four kinds of clothes that are hard to tell apart (t-shirt, pullover, coat, dress; 1,900, 1,534, 1,239 and 1,000
training rows, drawn by seed), six clients of equal mix, logistic regression, 24 rounds. From round 13 two clients
label a share of their dresses as t-shirts, so that .5, 1, 2 or 5 % of all clients' labels are wrong (all that they hold
would be 5.9 %). The server has no test rows: recall is that of the clients' own validation rows, a quarter of theirs,
summed over all clients, in a run with an attack without the attackers'.

One line per run in recall_runs.csv, with the recalls in thousandths: rounds apart by spaces, one column per class.
`recall_drop.py` sets the threshold on the seeds of `threshold` and judges it on the others.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

from runs import NAMES, data_words, discard, fill, finished

from fedimb.rundir.folder import RunFolder

HERE = Path(__file__).parent
CLASSES = (0, 2, 4, 3)  # t-shirt, pullover, coat, dress
DRESS, T_SHIRT = 3, 0
ROUNDS, START = 24, 13
RATES = (0.005, 0.01, 0.02, 0.05)
HELD = 2 / 6 * 1000 / (1900 + 1534 + 1239 + 1000)
"""Share of all labels that are dresses of the attackers."""
FIRST = {"threshold": 0, "clean": 1000, "flipped": 2000, "from_start": 3000}
"""First seed of each kind of run: no seed serves twice."""
THRESHOLD_RUNS = 300
"""Runs that serve for the threshold alone: a 98 % quantile of fewer is loose."""
ATTACKED = 208
"""An attack of each rate comes with every eighth of so many clean runs."""
KEYS = ("kind", "rate", "seed")
COLUMNS = (*KEYS, "status", *(NAMES[one] for one in CLASSES), "cpu_s")


def words(output: Path) -> list[str]:
    """The overrides of a clean run."""
    return [
        *data_words(output, CLASSES),
        *("data.test={name: none}", "data.validation=0.25", "data.long_tail=exponential", "data.imbalance_factor=1.9"),
        *("data.n_max=1900", "data.class_order=fixed", "partition=iid", "clients.count=6", f"rounds={ROUNDS}"),
        *(
            "model=logistic",
            "local.epochs=1",
            "local.batch_size=32",
            "local.lr=0.1",
            "local.momentum=0.9",
            f"checkpoint.every={ROUNDS}",
        ),
    ]


def wanted(most: int) -> Iterator[dict[str, object]]:
    """Which runs, so that every kind grows evenly."""
    for n in range(max(most, THRESHOLD_RUNS)):
        if n < most:
            yield {"kind": "clean", "rate": 0, "seed": FIRST["clean"] + n}
        if n < THRESHOLD_RUNS:
            yield {"kind": "threshold", "rate": 0, "seed": FIRST["threshold"] + n}
        if n < ATTACKED and n % 8 == 0:
            for rate in RATES:
                yield {"kind": "flipped", "rate": rate, "seed": FIRST["flipped"] + n // 8}
        if n < ATTACKED and n % 16 == 0:
            yield {"kind": "from_start", "rate": RATES[-1], "seed": FIRST["from_start"] + n // 16}


def one(run: Mapping[str, object], output: Path) -> dict[str, object]:
    """The recalls of one run."""
    own = words(output)
    if rate := float(str(run["rate"])):
        start = START if run["kind"] == "flipped" else 1
        own += ["attack=label_flip", "attack.fraction=0.33", f"attack.source={DRESS}", f"attack.target={T_SHIRT}"]
        own += [f"attack.share={rate / HELD:.4f}", f"attack.start={start}"]
    result, why = finished(own, output, int(str(run["seed"])))
    found: dict[str, object] = {"status": why or "finished"}
    if result is not None:
        lines = [line["metrics"] for line in RunFolder(result.folder).metrics()]
        for place, name in enumerate(NAMES[at] for at in CLASSES):
            key = next(k for k in lines[0] if k.startswith(f"client/recall/{place:02d}"))
            found[name] = " ".join(f"{1000 * line[key]:.0f}" for line in lines if key in line)
    discard(result)
    return found


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=416, help="clean runs")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after that many minutes")
    parser.add_argument("--output", type=Path, default=Path("runs/robust"), help="folder of the data and run folders")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), help="do every K-th run from the I-th: I K")
    args = parser.parse_args()
    own = itertools.islice(wanted(args.most), args.part[0], None, args.part[1])
    file = HERE / "recall_runs.csv"
    lines = fill(file, COLUMNS, KEYS, own, lambda run: one(run, args.output), args.minutes)
    print(f"{len(lines)} runs in recall_runs.csv")


if __name__ == "__main__":
    main()
