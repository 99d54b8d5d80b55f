"""What robust aggregators cost the rare classes without attackers, and what they save with 10, 20 and 30 %.

    python experiments/robust/tail_tax.py                # repeat the command to continue
    python experiments/robust/tail_tax.py --minutes 30   # as many as fit
    python experiments/robust/tail_tax.py --minutes 0    # only write taxes.csv from runs.csv

Fashion-MNIST as 7 x 7 pictures with an exponential tail (600 ... 60 rows of 10 classes, drawn by seed), 24 clients,
Dirichlet skew .1 or .5, 12 rounds of 4 epochs, logistic regression; the official test rows, 1,000 a class. One line per
run and calibration in runs.csv. The defences stay as they are set for all numbers of attackers: those that need a
number of attackers are told 7, the most that attack (Bulyan 5, the most it can bear of 24).
"""

import argparse
import csv
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from runs import data_words, discard, fill, finished

from fedimb.evaluation.intervals import t_interval

HERE = Path(__file__).parent
SEEDS, SKEWS = range(12), ("0.1", "0.5")
DEFENCES: dict[str, list[str]] = {
    "mean": [],
    "median": ["aggregator=fedmedian"],
    "trimmed_mean": ["aggregator=fedtrimmedavg", "aggregator.beta=0.3"],
    "krum": ["aggregator=krum", "aggregator.num_malicious_nodes=7"],
    "multi_krum": ["aggregator=multikrum", "aggregator.num_malicious_nodes=7", "aggregator.num_nodes_to_select=17"],
    "bulyan": ["aggregator=bulyan", "aggregator.num_malicious_nodes=5"],
    "norm_bound": ["clients.max_update_ratio=1"],
    "bucketing": ["aggregator=bucketing"],
    "class_aware_median": ["aggregator=class_aware_median"],
}
REFUNDS = ("bucketing", "class_aware_median")
ATTACKS = {
    "none": [],
    "sign_flip": ["attack=sign_flip", "attack.factor=2"],
    "rare_mimic": ["attack=rare_mimic", "attack.factor=2"],
}
WITHSTOOD = {"bulyan": 5}
"""Attackers of 24 that a defence can be told of, if fewer than 7."""
KEYS = ("skew", "defence", "attack", "fraction", "seed")
SCORES = ("minority_recall", "macro_recall", "minority_recall_la_post", "macro_recall_la_post")
COLUMNS = (*KEYS, "status", *SCORES, "cpu_s")
SUMMARY = ("score", "skew", "attack", "fraction", "defence", "runs", "mean", "seeds", "gain", "low", "high",
           "returned", "returned_low", "returned_high")  # fmt: skip
CELLS = [("none", 0.0)] + [("sign_flip", f) for f in (0.2, 0.1, 0.3)] + [("rare_mimic", f) for f in (0.2, 0.1, 0.3)]
LEAST_TAX = 0.03


def words(output: Path, skew: str) -> list[str]:
    """The overrides of a run with a weighted mean and no attack."""
    return [
        *data_words(output, tuple(range(10))),
        *("data.test={name: official}", "data.long_tail=exponential", "data.imbalance_factor=10", "data.n_max=600"),
        *(f"partition.alpha={skew}", "clients.count=24", "rounds=12", "local.epochs=4", "local.batch_size=16"),
        *("local.lr=0.5", "model=logistic", "calibration=[none,la_post]"),
        *("evaluation.every=12", "evaluation.last_k=1", "checkpoint.every=12"),
    ]


def wanted() -> Iterator[dict[str, object]]:
    """Which runs: all without attackers, then 20 % of the first attack, then the others."""
    for attack, fraction in CELLS:
        for seed in SEEDS:
            for skew in SKEWS:
                for defence in DEFENCES:
                    if round(24 * fraction) > WITHSTOOD.get(defence, 7):
                        continue
                    if attack == "rare_mimic" and defence not in ("mean", "median", *REFUNDS):
                        continue
                    yield {"skew": skew, "defence": defence, "attack": attack, "fraction": fraction, "seed": seed}


def one(run: Mapping[str, object], output: Path) -> dict[str, object]:
    """The scores of one run."""
    own = [*words(output, str(run["skew"])), *DEFENCES[str(run["defence"])], *ATTACKS[str(run["attack"])]]
    own += [f"attack.fraction={run['fraction']}"] if run["attack"] != "none" else []
    result, why = finished(own, output, int(str(run["seed"])))
    found: dict[str, object] = {"status": why or "finished"}
    for row, ending in zip(result.rows if result is not None else (), ("", "_la_post"), strict=False):
        found |= {f"{k}{ending}": f"{row.metrics[k]:.4f}" for k in ("minority_recall", "macro_recall")}
    discard(result)
    return found


Lines = list[dict[str, str]]


def scores(lines: Lines, score: str, **cell: object) -> dict[int, float]:
    """Seed -> score of the finished runs of a cell."""
    at = {key: str(value) for key, value in cell.items()}
    found = [line for line in lines if line["status"] == "finished" and all(line[k] == v for k, v in at.items())]
    return {int(line["seed"]): float(line[score]) for line in found}


def summaries(lines: Lines) -> list[dict[str, object]]:
    """One line per score and cell: its mean, the difference to the weighted mean on the same seeds, what it returns."""
    found = []
    for score, skew in itertools.product(SCORES, SKEWS):
        for attack, fraction in CELLS:
            cell = {"skew": skew, "attack": attack, "fraction": fraction}
            by = {d: scores(lines, score, defence=d, **cell) for d in DEFENCES}
            for defence, own in by.items():
                if not own:
                    continue
                line = {
                    "score": score,
                    **cell,
                    "fraction": f"{fraction:g}",
                    "defence": defence,
                    "runs": len(own),
                    "mean": np.mean(list(own.values())),
                }
                if defence != "mean":
                    line |= difference(own, by["mean"])
                if defence in REFUNDS and attack == "none":
                    line |= returned(by["mean"], by["median"], own)
                found.append({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in line.items()})
    return found


def difference(a: dict[int, float], b: dict[int, float]) -> dict[str, object]:
    """Mean of a - b over common seeds with its 95 % t interval, and the number of seeds."""
    gaps = [a[s] - b[s] for s in sorted(a.keys() & b.keys())]
    if len(gaps) < 2:
        return {"seeds": len(gaps)}
    return {"seeds": len(gaps), **dict(zip(("gain", "low", "high"), t_interval(gaps), strict=True))}


def returned(mean: dict[int, float], median: dict[int, float], refund: dict[int, float]) -> dict[str, object]:
    """Share of the median's tax that a refund returns, with a 95 % bootstrap interval over seeds (ratio of means).

    Empty where the tax is below `LEAST_TAX`; an end of the interval is infinite where draws have no tax to return.
    """
    seeds = sorted(mean.keys() & median.keys() & refund.keys())
    tax = np.array([mean[s] - median[s] for s in seeds])
    back = np.array([refund[s] - median[s] for s in seeds])
    if len(seeds) < 2 or tax.mean() < LEAST_TAX:
        return {}
    drawn = np.random.default_rng(0).integers(0, len(seeds), (10_000, len(seeds)))
    taxes = tax[drawn].mean(axis=1)
    ratios = np.where(taxes > 0, back[drawn].mean(axis=1) / np.where(taxes > 0, taxes, 1), np.inf)
    low, high = np.quantile(ratios, [0.025, 0.975], method="inverted_cdf")  # a draw without a tax is infinity
    return {"returned": back.mean() / tax.mean(), "returned_low": low, "returned_high": high}


def main() -> None:
    """Run what is missing and write the summaries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after that many minutes")
    parser.add_argument("--output", type=Path, default=Path("runs/robust"), help="folder of the data and run folders")
    args = parser.parse_args()
    if args.minutes > 0:
        fill(HERE / "runs.csv", COLUMNS, KEYS, wanted(), lambda run: one(run, args.output), args.minutes)
    found = summaries(list(csv.DictReader((HERE / "runs.csv").open())))
    with (HERE / "taxes.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, SUMMARY, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print((HERE / "taxes.csv").read_text())


if __name__ == "__main__":
    main()
