"""How often does the alarm for a falling recall ring, in clean runs and in runs with flipped labels?

    python experiments/robust/recall_runs.py     # the runs
    python experiments/robust/recall_drop.py     # writes recall_drop.csv and prints it

The unit is the run: it rings if the sum of any class passes the threshold in any round. `fitted` is the 98 % quantile
of the clean runs whose seeds served only for that; the threshold in `fedimb.evaluation.recall_drop` is this, rounded
up. It is judged on `clean`: seeds that nobody had looked at when it was set. `clean_before` are those on which a
former threshold, from fewer runs, had been judged.
Intervals are Clopper and Pearson's, 95 %.
"""

import csv
import statistics
from pathlib import Path

import numpy as np
from scipy.stats import beta

from fedimb.evaluation.recall_drop import THRESHOLD, RecallDrop, largest_drop

HERE = Path(__file__).parent
ROWS = {"t_shirt": 475, "pullover": 383, "coat": 310, "dress": 250}
"""Validation rows of the six clients, about: a quarter of a class. In a run with an attack four clients' count."""
CLASSES = tuple(ROWS)
RARE, START = "dress", 13
JUDGED_FROM = 1208
"""First seed of the clean runs that nobody had looked at when the threshold was set."""

Line = dict[str, str]


def recalls(line: Line, name: str) -> list[float]:
    """The recalls of a class, round by round."""
    return [int(one) / 1000 for one in line[name].split()]


def rows(line: Line, name: str) -> float:
    """The scored rows of a class."""
    return ROWS[name] * (4 / 6 if line["kind"] in ("flipped", "from_start") else 1)


def largest(line: Line) -> float:
    """The largest sum of any class."""
    return max(largest_drop(recalls(line, name), rows(line, name)) for name in CLASSES)


def first_alarm(line: Line) -> int | None:
    """The first round in which any class rings; None if none does."""
    rounds = []
    for name in CLASSES:
        watch = RecallDrop()
        own = rows(line, name)
        rounds += [n for n, one in enumerate(recalls(line, name), 1) if watch.add(one, own) > THRESHOLD][:1]
    return min(rounds, default=None)


def interval(hits: int, runs: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a rate."""
    low = beta.ppf(0.025, hits, runs - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, runs - hits) if hits < runs else 1.0
    return float(low), float(high)


def main() -> None:
    """Count, write and print."""
    lines = [line for line in csv.DictReader((HERE / "recall_runs.csv").open()) if line["status"] == "finished"]
    for line in lines:
        if line["kind"] == "clean" and int(line["seed"]) < JUDGED_FROM:
            line["kind"] = "clean_before"
    kinds = dict.fromkeys((line["kind"], line["rate"]) for line in lines)
    found = []
    for kind, rate in sorted(kinds):
        own = [line for line in lines if (line["kind"], line["rate"]) == (kind, rate)]
        rounds = [n for line in own if (n := first_alarm(line)) is not None]
        # An alarm before the attack is a false one, whatever follows.
        hits = [n for n in rounds if kind != "flipped" or n >= START]
        low, high = interval(len(hits), len(own))
        falls = [np.mean(recalls(line, RARE)[8:12]) - np.mean(recalls(line, RARE)[-4:]) for line in own]
        found.append({
            "kind": kind, "rate": rate, "runs": len(own), "alarms": len(hits), "share": f"{len(hits) / len(own):.3f}",
            "low": f"{low:.3f}", "high": f"{high:.3f}", "fall_of_recall": f"{np.mean(falls):.3f}",
            "median_round": statistics.median(hits) if hits else "",
            "fitted": f"{np.quantile([largest(one) for one in own], 0.98):.2f}" if kind == "threshold" else "",
        })  # fmt: skip
    with (HERE / "recall_drop.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print((HERE / "recall_drop.csv").read_text())


if __name__ == "__main__":
    main()
