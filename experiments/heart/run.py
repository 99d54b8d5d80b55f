"""Four hospitals: disease by site (parity), and severe disease at three sites by repeated cross-validation.

    python experiments/heart/run.py        # needs FEDIMB_DATA_DIR; writes folds.csv, severe.csv and table.txt

Five repeats of five stratified folds; a repeat's five out-of-fold confusion matrices are summed before any metric is
taken, so every patient is tested once per repeat. Intervals are over the five repeats: they share patients, so they
show the noise of the split and of training, not what another set of patients would give.
"""

import csv
from pathlib import Path

import numpy as np

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.evaluation.intervals import t_interval
from fedimb.evaluation.metrics import scores
from fedimb.schema import RunConfig
from fedimb.study.experiments import arguments, parser_of, publish, run_whole

TRUNKS = (
    ("calibration=[none,la_post]",),
    ("calibration=[none,la_post]", "aggregation_weight=uniform", "prior.weighting=effective"),
    ("loss=balanced_softmax",),
)
TASKS = {
    "four": ["data=heart_four", "data.test={name: fold, folds: 5, fold: 0, repeat: 0}", "clients.count=4"],
    "severe": ["data=heart_severe", "clients.count=3"],
}
BASE = [
    "partition=by_column",
    "model=logistic",
    "rounds=30",
    "local.epochs=2",
    "local.lr=0.05",
    "engine=inline",
    "tracking=none",
    "evaluation.bootstrap=0",
]
SCORES = ("macro_recall", "minority_recall", "min_class_recall", "accuracy")


def plan(task: str, repeats: int, output: Path) -> list[RunConfig]:
    """Every run of one task, checked. The seed is the repeat's: another start and batch order with other folds."""
    words = [*BASE, *TASKS[task], f"study={task}", f"output_dir={output}"]
    return [
        validate(compose([*words, *trunk, f"data.test.repeat={repeat}", f"data.test.fold={fold}", f"seed={repeat}"]))
        for trunk in TRUNKS
        for repeat in range(repeats)
        for fold in range(5)
    ]


def run(task: str, repeats: int, output: Path, to: Path) -> list[str]:
    """Run a task, write its CSV (one line per row label and repeat), return the lines of its table."""
    pooled: dict[tuple[str, int], np.ndarray] = {}
    minority: tuple[int, ...] = ()
    configs = plan(task, repeats, output)
    for config, result in zip(configs, run_whole(configs), strict=True):
        minority = result.minority
        for row in result.rows:
            key = (row.label, int(config.data["test"]["repeat"]))
            pooled[key] = pooled.get(key, 0) + row.confusion
    with open(to / f"{task}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "repeat", *SCORES, "confusion"])
        for (label, repeat), matrix in pooled.items():
            held = scores(matrix, minority)
            writer.writerow([label, repeat, *(f"{held[s]:.6f}" for s in SCORES), matrix.tolist()])
    lines = [f"{task}: {int(next(iter(pooled.values())).sum())} patients, each tested once per repeat"]
    lines.append(f"  {'row':34} {'macro recall':>22} {'minority recall':>22} {'accuracy':>9}")
    for label in dict.fromkeys(label for label, _ in pooled):
        held = [scores(matrix, minority) for (name, _), matrix in pooled.items() if name == label]
        shown = []
        for score in ("macro_recall", "minority_recall"):
            mean, low, high = t_interval([one[score] for one in held], 0.95)
            shown.append(f"{mean:.3f} ({low:.3f} to {high:.3f})")
        lines.append(f"  {label:34} {shown[0]:>22} {shown[1]:>22} {np.mean([h['accuracy'] for h in held]):9.3f}")
    return lines


def main() -> None:
    parser = parser_of(__file__, __doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = arguments(parser)
    lines = [line for task in TASKS for line in [*run(task, args.repeats, args.output, args.to), ""]]
    publish("\n".join(lines), args.to)


if __name__ == "__main__":
    main()
