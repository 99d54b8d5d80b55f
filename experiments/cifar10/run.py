"""CIFAR-10 with a long tail (imbalance 50) over 20 clients on Ray: the whole image path, not a benchmark result.

    python experiments/cifar10/run.py     # needs FEDIMB_DATA_DIR; writes comparison.csv and table.txt

Ten rounds and one seed are far from convergence: they show that the path works and what it costs.
"""

import argparse
import logging
from pathlib import Path

from fedimb.cli.demo import write_csv
from fedimb.cli.panel import table_rows
from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.errors import RunFailed
from fedimb.report.groups import RunRow
from fedimb.report.table import comparison_table
from fedimb.run.batch import run_batch

HERE = Path(__file__).parent
BASE = [
    "data=cifar10",
    "partition.alpha=0.5",
    "clients.count=20",
    "model=cnn4conv",
    "model.width=32",
    "rounds=10",
    "local.epochs=2",
    "local.batch_size=32",
    "local.lr=0.05",
    "local.momentum=0.9",
    "local.augmentation=[flip,{name: pad_crop, pad: 4}]",
    "evaluation.last_k=1",
    "tracking=none",
]
TRUNKS = (("calibration=[none,la_post,tau]",), ("loss=balanced_softmax",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings for every run, e.g. engine=inline rounds=1")
    parser.add_argument("--output", type=Path, default=Path("runs/cifar10"), help="run folders")
    parser.add_argument("--to", type=Path, default=HERE, help="CSV and table")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    words = [*BASE, "study=cifar10", f"output_dir={args.output}", *args.overrides]
    rows: list[RunRow] = []
    for result in run_batch([validate(compose([*words, *trunk])) for trunk in TRUNKS]):
        if isinstance(result, RunFailed):
            raise result
        rows += table_rows(result)
    args.to.mkdir(parents=True, exist_ok=True)
    write_csv(rows, args.to / "comparison.csv")
    text = comparison_table(rows)
    (args.to / "table.txt").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
