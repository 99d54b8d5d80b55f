"""What robust aggregators cost the rare classes without attackers, and what they save with 10, 20 and 30 %.

    python experiments/robust/tail_tax.py                # repeat the command to continue
    python experiments/robust/tail_tax.py --minutes 30   # as many as fit
    python experiments/robust/tail_tax.py --minutes 0    # only write table.txt from runs.csv

Fashion-MNIST as 7 x 7 pictures with an exponential tail (600 ... 60 rows of 10 classes, drawn by seed), 24 clients,
Dirichlet skew .1 or .5, 12 rounds of 4 epochs, logistic regression; the official test rows, 1,000 a class. One line per
run and calibration in runs.csv. The defences stay as they are set for all numbers of attackers: those that need a
number of attackers are told 7, the most that attack (Bulyan 5, the most it can bear of 24).
"""

import argparse
import csv
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
    cells = [("none", 0.0)] + [("sign_flip", f) for f in (0.2, 0.1, 0.3)] + [("rare_mimic", f) for f in (0.2, 0.1, 0.3)]
    for attack, fraction in cells:
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


def paired(a: dict[int, float], b: dict[int, float]) -> str:
    """Mean of a - b over common seeds with its 95 % t interval, and the number of seeds."""
    gaps = [a[s] - b[s] for s in sorted(a.keys() & b.keys())]
    if len(gaps) < 2:
        return f"- (n={len(gaps)})"
    mean, low, high = t_interval(gaps)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}] n={len(gaps)}"


def returned(mean: dict[int, float], median: dict[int, float], refund: dict[int, float]) -> str:
    """Share of the median's tax that a refund returns, with a 95 % bootstrap interval over seeds (ratio of means)."""
    seeds = sorted(mean.keys() & median.keys() & refund.keys())
    tax = np.array([mean[s] - median[s] for s in seeds])
    back = np.array([refund[s] - median[s] for s in seeds])
    if len(seeds) < 2 or tax.mean() < LEAST_TAX:
        return f"no tax of {LEAST_TAX} to return" if len(seeds) >= 2 else "-"
    drawn = np.random.default_rng(0).integers(0, len(seeds), (10_000, len(seeds)))
    taxes = tax[drawn].mean(axis=1)
    ratios = np.where(taxes > 0, back[drawn].mean(axis=1) / np.where(taxes > 0, taxes, 1), np.inf)
    low, high = np.quantile(ratios, [0.025, 0.975], method="inverted_cdf")  # a draw without a tax is infinity
    upper = f"{high:.0%}" if np.isfinite(high) else "unbounded"
    return f"{back.mean() / tax.mean():.0%} [{low:.0%}, {upper}] n={len(seeds)}"


def table(lines: Lines) -> str:
    """The tables of the page."""
    out = []
    for score in SCORES:
        for skew in SKEWS:
            clean = {d: scores(lines, score, skew=skew, defence=d, attack="none") for d in DEFENCES}
            out += [f"\n{score}, skew {skew}: without attackers, and tax (mean - defence)"]
            for d in DEFENCES:
                level = np.mean(list(clean[d].values())) if clean[d] else float("nan")
                out.append(f"  {d:<19} {level:.3f}   tax {paired(clean['mean'], clean[d]) if d != 'mean' else ''}")
            for d in REFUNDS:
                out.append(
                    f"  {d:<19} returns of the median's tax: {returned(clean['mean'], clean['median'], clean[d])}"
                )
            for attack in list(ATTACKS)[1:]:
                for fraction in (0.1, 0.2, 0.3):
                    cell = {"skew": skew, "attack": attack, "fraction": fraction}
                    base = scores(lines, score, defence="mean", **cell)
                    if not base:
                        continue
                    out.append(f"  {attack} by {fraction:.0%}: mean {np.mean(list(base.values())):.3f}; saved by")
                    for d in list(DEFENCES)[1:]:
                        if found := scores(lines, score, defence=d, **cell):
                            level = np.mean(list(found.values()))
                            out.append(f"    {d:<19} {level:.3f}   {paired(found, base)}")
    return "\n".join(out).strip() + "\n"


def main() -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after that many minutes")
    parser.add_argument("--output", type=Path, default=Path("runs/robust"), help="folder of the data and run folders")
    args = parser.parse_args()
    if args.minutes > 0:
        fill(HERE / "runs.csv", COLUMNS, KEYS, wanted(), lambda run: one(run, args.output), args.minutes)
    text = table(list(csv.DictReader((HERE / "runs.csv").open())))
    (HERE / "table.txt").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
