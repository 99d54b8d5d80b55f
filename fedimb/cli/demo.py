"""``fedimb demo``: the main job, small. Seven rows on long-tailed digits, three seeds, one table."""

import csv
import sys
import time
from pathlib import Path

from fedimb.cli.panel import table_rows
from fedimb.config.compose import compose
from fedimb.config.schema import RunConfig
from fedimb.config.validate import validate
from fedimb.errors import ConfigError, RunFailed
from fedimb.evaluation.metrics import SCORES
from fedimb.report.groups import RunRow
from fedimb.report.plots import comparison_figure
from fedimb.report.table import comparison_table
from fedimb.run.batch import run_batch
from fedimb.tracking.mlflow import charts_link, resolve_uri

TRUNKS: tuple[tuple[str, ...], ...] = (
    ("calibration=[none,la_post,tau]",),
    ("aggregator=fedprox", "calibration=[none,la_post,tau]"),
    ("loss=balanced_softmax",),
)
"""Trained models of the demo; the calibrations of one trunk are scored on the same checkpoints."""


def configs(overrides: list[str], seeds: int, study: str) -> list[RunConfig]:
    """Every run of the demo, all checked before the first one starts."""
    return [
        validate(compose([f"study={study}", *trunk, *overrides, f"seed={seed}"]))
        for trunk in TRUNKS
        for seed in range(seeds)
    ]


def write_csv(rows: list[RunRow], path: Path) -> Path:
    """One line per row and seed: label, seed, every headline score, bytes up and down together, seconds."""
    scores = sorted((n for n in SCORES if n != "defined_classes"), key=lambda n: n == "accuracy")
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "seed", *scores, "bytes", "seconds"])
        for row in rows:
            values = [f"{row['metrics'][name]:.6f}" for name in scores]
            writer.writerow([row["label"], row["seed"], *values, row["bytes"], f"{row['seconds']:.2f}"])
    return path


def demo(overrides: list[str], seeds: int) -> int:
    """Run the demo and print its table. Returns the exit code: 1 when a run failed (the table says which)."""
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1; got {seeds}")
    study = time.strftime("demo-%Y%m%d-%H%M%S")
    runs = configs(overrides, seeds, study)
    first = runs[0]
    print(
        f"10-class digits, imbalance {first.data['imbalance_factor']}, {first.clients.count} clients "
        f"({first.partition['name']}), {first.rounds} rounds, {seeds} seeds: {len(runs)} runs",
        file=sys.stderr,
    )
    rows: list[RunRow] = []
    failed = 0
    for result in run_batch(runs):
        if isinstance(result, RunFailed):
            failed += 1
            print(f"fedimb: {result}", file=sys.stderr)
        else:
            rows += table_rows(result)
    if not rows:
        return 1
    print(comparison_table(rows))
    last = first.evaluation.last_k
    print(f"\nscores: mean of the last {last} rounds on the test set; +-: 95 % t interval over {seeds} seeds")
    folder = Path(first.output_dir) / study
    print(f"picture: {comparison_figure(rows, folder / 'comparison.png')}")
    print(f"numbers: {write_csv(rows, folder / 'comparison.csv')}")
    if first.tracking["name"] == "mlflow":
        uri = resolve_uri(first.tracking.get("uri"), Path(first.output_dir))
        command, url = charts_link(uri, first.tracking.get("experiment") or study)
        print(f"charts:  {command}\n         {url}")
    return 1 if failed else 0
