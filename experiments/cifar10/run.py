"""CIFAR-10 with a long tail (imbalance 50) over 20 clients on Ray: the whole image path, not a benchmark result.

    python experiments/cifar10/run.py     # needs FEDIMB_DATA_DIR; writes comparison.csv and table.txt

Ten rounds and one seed are far from convergence: they show that the path works and what it costs.
"""

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.report.study_tables import run_row
from fedimb.report.table import comparison_table
from fedimb.study.experiments import arguments, parser_of, publish, run_to_csv

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
    parser = parser_of(__file__, __doc__)
    parser.add_argument("overrides", nargs="*", help="settings for every run, e.g. engine=inline rounds=1")
    args = arguments(parser)
    words = [*BASE, "study=cifar10", f"output_dir={args.output}", *args.overrides]
    configs = [validate(compose([*words, *trunk])) for trunk in TRUNKS]
    results = run_to_csv(configs, args.to / "comparison.csv")
    publish(comparison_table([run_row(result) for result in results]), args.to)


if __name__ == "__main__":
    main()
