"""What exact sums cost and change, beside the float64 sums over lanes that they replaced.

    python experiments/engine/exact_sums.py speed --to experiments/engine/exact_sums.csv
    python experiments/engine/exact_sums.py runs --to experiments/engine/exact_sums_runs.csv

``speed``: processor seconds to check and add twenty replies of 1.2 million weights (an mlp's four arrays) and of 2,410
(four small arrays), the ways in turns: as it was, in twenty lanes; in one lane, where float64 is fastest; exact. And
the bytes that two workers send the server for a round, pickled: float64 sums of 32 lanes, or one sum of each.

``runs``: ten small runs. Every mean that a run takes is computed a second time from the same replies as it was before
(float64, each lane's clients in order, then the lanes), and both are compared as float32. ``most_ulp`` is the largest
difference in units of the last place, of values of at least 1e-7 in size; ``most_below`` the largest difference of
smaller ones, whose last places are finer than the unit of the sum. The hash is that of the run's final weights.
"""

import argparse
import csv
import hashlib
import itertools
import math
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import fedimb
from fedimb.engine.lanes import MAX_LANES, cut_lanes
from fedimb.sums import ExactSum, Scale, WeightLimits

Arrays = dict[str, np.ndarray]

SHAPES = {
    "1.2 million": ((784, 1024), (1024,), (1024, 400), (400,)),
    "2,410": ((64, 32), (32,), (32, 10), (10,)),
}
CLIENTS = 20
FLOOR = 1e-7

SMALL = "data.n_max=60 clients.count=5 rounds=3 local.epochs=1 tracking=none evaluation.bootstrap=0 engine=inline"
RUNS = {
    "fedavg": "",
    "loop": "engine.trainer=loop loss=fedlc data.imbalance_factor=4",
    "batchnorm": "model=cnn4conv model.width=8 model.norm=batch",
    "fedprox": "aggregator=fedprox clients.count=8 clients.participation=0.5 clients.dropout=0.2",
    "fednova": "aggregator=fednova",
    "feddyn": "aggregator=feddyn",
    "fedexp": "aggregator=fedexp",
    "fedadam": "aggregator=fedadam",
    "climb": "strategy=climb",
    "creff": "strategy=creff strategy.creff.per_class=3 strategy.creff.match_steps=2 strategy.creff.head_epochs=2",
}


def lane_sums(weights: list[float], replies: list[Arrays], most: int = MAX_LANES) -> list[Arrays]:
    """The float64 sums of the lanes, as they were; of one lane where ``most`` is 1."""
    lanes = []
    for lane in cut_lanes(len(replies)) if most > 1 else [slice(0, len(replies))]:
        sums: Arrays = {}
        for weight, arrays in zip(weights[lane], replies[lane], strict=True):
            for name, value in arrays.items():
                if value.dtype.kind == "f" and not math.isfinite(value.sum()):
                    raise ValueError(name)
                term = np.multiply(value, weight, dtype=np.float64)
                if name in sums:
                    sums[name] += term
                else:
                    sums[name] = term
        lanes.append(sums)
    return lanes


def float64_mean(weights: list[float], replies: list[Arrays], most: int = MAX_LANES) -> Arrays:
    """The mean, as it was: lanes in order."""
    total: Arrays = {}
    for sums in lane_sums(weights, replies, most):
        total = {name: total[name] + value if total else value for name, value in sums.items()}
    return {name: value / sum(weights) for name, value in total.items()}


def exact_sum(scale: Scale, weights: list[float], replies: list[Arrays]) -> ExactSum:
    """The sum, as it is."""
    total = ExactSum(scale)
    for weight, arrays in zip(weights, replies, strict=True):
        total.add_weighted(weight, arrays)
    return total


def speed(pairs: int) -> list[dict[str, object]]:
    """One row per model, pair and way."""
    rows: list[dict[str, object]] = []
    for model, shapes in SHAPES.items():
        rng = np.random.default_rng(0)
        replies = [
            {str(i): rng.normal(scale=0.05, size=shape).astype(np.float32) for i, shape in enumerate(shapes)}
            for _ in range(CLIENTS)
        ]
        weights = rng.integers(20, 500, CLIENTS).astype(float).tolist()
        scale = Scale.of(replies[0], WeightLimits.of(weights))
        values, times = sum(math.prod(shape) for shape in shapes), 1 if model == "1.2 million" else 100
        sent = {
            "float64, one lane": [len(pickle.dumps(lane_sums(weights, replies, 1)))] * 2,
            "float64": [len(pickle.dumps(sums)) for sums in lane_sums(weights[:1], replies[:1])] * MAX_LANES,
            "exact": [len(pickle.dumps(exact_sum(scale, weights, replies)))] * 2,
        }
        ways: dict[str, Callable[[], object]] = {
            "float64": lambda w=weights, r=replies: float64_mean(w, r),  # type: ignore[misc]
            "float64, one lane": lambda w=weights, r=replies: float64_mean(w, r, 1),  # type: ignore[misc]
            "exact": lambda s=scale, w=weights, r=replies: exact_sum(s, w, r).mean(),  # type: ignore[misc]
        }
        for pair, way in itertools.product(range(-1, pairs), ways):
            started = time.process_time()
            for _ in range(times):
                ways[way]()
            spent = (time.process_time() - started) / times
            row = {"weights": model, "pair": pair, "way": way, "ns_per_value": f"{1e9 * spent / values / CLIENTS:.3f}"}
            if pair >= 0:  # the first one warms up
                rows.append(row | {"sums": len(sent[way]), "up_bytes": sum(sent[way])})
    return rows


def ulps(new: np.ndarray, old: np.ndarray) -> tuple[float, float]:
    """The largest difference of two float32 arrays in units of the last place; and that of values below 1e-7."""
    apart, small = np.abs(new.astype(np.float64) - old), np.abs(old) < FLOOR
    units = apart / np.spacing(np.abs(old)).astype(np.float64)
    return float(units[~small].max(initial=0.0)), float(apart[small].max(initial=0.0))


def compared(words: str) -> dict[str, object]:
    """One run, each of whose means is also taken as it was."""
    found: dict[str, Any] = {"means": 0, "values": 0, "differ": 0, "most_ulp": 0.0, "most_below": 0.0}
    add_weighted, add, mean = ExactSum.add_weighted, ExactSum.add, ExactSum.mean

    def seen(total: ExactSum) -> list[tuple[float, Arrays]]:
        replies: list[tuple[float, Arrays]] = total.__dict__.setdefault("_seen", [])
        return replies

    def adding(self: ExactSum, weight: float, arrays: Mapping[str, np.ndarray], checked: bool = False) -> None:
        add_weighted(self, weight, arrays, checked)
        seen(self).append((weight, {name: value.copy() for name, value in arrays.items()}))

    def joining(self: ExactSum, other: ExactSum) -> None:
        add(self, other)
        seen(self).extend(seen(other))

    def taking(self: ExactSum) -> Arrays:
        new = mean(self)
        if new:
            old = float64_mean(*map(list, zip(*seen(self), strict=True)))
            found["means"] += 1
            for name, value in new.items():
                one, two = value.astype(np.float32), old[name].astype(np.float32)
                found["values"] += value.size
                found["differ"] += int((one != two).sum())
                for key, apart in zip(("most_ulp", "most_below"), ulps(one, two), strict=True):
                    found[key] = max(found[key], apart)
        return new

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(ExactSum, "add_weighted", adding),
        patch.object(ExactSum, "add", joining),
        patch.object(ExactSum, "mean", taking),
    ):
        result = fedimb.run(f"{SMALL} {words} output_dir={folder}")
        data = (Path(result.folder) / "artifacts" / "model" / "model.safetensors").read_bytes()
    rounded = {key: f"{found[key]:.2g}" for key in ("most_ulp", "most_below")}
    return found | rounded | {"sha256": hashlib.sha256(data).hexdigest()}


def main() -> None:
    """Measure, write the CSV, and print what it says."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("what", choices=("speed", "runs"))
    words.add_argument("--to", type=Path, required=True)
    words.add_argument("--pairs", type=int, default=9)
    args = words.parse_args()
    rows = (
        speed(args.pairs)
        if args.what == "speed"
        else [{"run": name, "words": own} | compared(own) for name, own in RUNS.items()]
    )
    with args.to.open("w", newline="") as out:
        table = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    if args.what == "speed":
        for model in SHAPES:
            took = {
                way: [float(str(r["ns_per_value"])) for r in rows if (r["weights"], r["way"]) == (model, way)]
                for way in ("exact", "float64", "float64, one lane")
            }
            for way in ("float64", "float64, one lane"):
                ratio = statistics.median(a / b for a, b in zip(took["exact"], took[way], strict=True))
                print(f"{model} weights: exact / {way} {ratio:.2f} (median of {args.pairs} pairs)")
    else:
        for row in rows:
            differ = f"{row['run']}: {row['differ']} of {row['values']} values differ"
            print(f"{differ}, most {row['most_ulp']} ulp, {row['most_below']} below {FLOOR}")


if __name__ == "__main__":
    main()
