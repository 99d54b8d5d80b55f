"""The digits-LT yardstick: does fedimb give the numbers that independent programs agreed on?

    python experiments/yardstick/run.py            # 12 seeds; writes the CSVs and table.txt beside this file
    python experiments/yardstick/run.py alpha0.1   # one setting; the table reads the CSVs of the others
    python experiments/yardstick/run.py --seeds 2 --to runs/look
    python experiments/yardstick/run.py last_client     # only last_client.csv, which needs no runs

Finished runs are kept below runs/yardstick and not repeated.
"""

import csv
from pathlib import Path

import numpy as np

from fedimb.config.compose import compose
from fedimb.config.validate import validate
from fedimb.data.prepare import prepare
from fedimb.evaluation.intervals import t_interval
from fedimb.schema import RunConfig
from fedimb.study.experiments import arguments, parser_of, publish, run_to_csv

BASE = ["data=digits", "model=mlp", "engine=inline", "tracking=none", "evaluation.every=1", "evaluation.bootstrap=0"]
CE = ("calibration=[none,la_post]",)
TRUNKS = {
    "alpha0.5": (CE, ("loss=balanced_softmax",), ("aggregator=fedprox",), ("loss=focal",), ("loss=fedlc",)),
    "alpha0.1": (CE, ("loss=fedlc",)),
    "floor": (CE,),
}
SETTINGS = {
    "alpha0.5": ["partition.alpha=0.5"],
    "alpha0.1": ["partition.alpha=0.1"],
    "floor": ["partition.alpha=0.5", "partition.rounding=floor"],
}


def plan(setting: str, seeds: int, output: Path) -> list[RunConfig]:
    """Every run of one setting, checked."""
    words = [*BASE, *SETTINGS[setting], f"study={setting}", f"output_dir={output}"]
    return [validate(compose([*words, *trunk, f"seed={seed}"])) for seed in range(seeds) for trunk in TRUNKS[setting]]


Scores = dict[str, np.ndarray]
"""Macro recall by seed, by row label."""


def read(folder: Path) -> dict[str, Scores]:
    """The scores of every setting whose CSV stands in ``folder``."""
    found: dict[str, Scores] = {}
    for setting in TRUNKS:
        if (folder / f"{setting}.csv").exists():
            with open(folder / f"{setting}.csv", newline="") as file:
                rows = sorted(csv.DictReader(file), key=lambda row: int(row["seed"]))
            labels = dict.fromkeys(row["label"] for row in rows)
            found[setting] = {
                label: np.array([float(r["macro_recall"]) for r in rows if r["label"] == label]) for label in labels
            }
    return found


Check = tuple[str, float, str, bool]
"""What, measured, expected, whether it holds."""


def near(what: str, figure: float, middle: float, width: float) -> Check:
    return what, figure, f"{middle:.3f} +- {width:.3f}", abs(figure - middle) <= width


def wins(what: str, better: np.ndarray, worse: np.ndarray, of_twelve: int) -> Check:
    won = int((better > worse).sum())
    return what, won, f">= {of_twelve}/12", won >= of_twelve * len(better) / 12


def checks(half: Scores, tenth: Scores) -> list[Check]:
    """The lines of the yardstick, at alpha .5 and .1."""
    ce, low = half["fedavg"], tenth["fedavg"]
    fedlc_gain, fedlc_loss = (half["fedlc"] - ce).mean(), (tenth["fedlc"] - low).mean()
    return [
        near("alpha .5: CE", ce.mean(), 0.785, 0.03),
        near("alpha .5: la_post", half["la_post"].mean(), 0.87, 0.03),
        wins("alpha .5: seeds where la_post beats CE", half["la_post"], ce, 11),
        near("alpha .5: balanced softmax", half["balanced_softmax"].mean(), 0.87, 0.03),
        wins("alpha .5: seeds where balanced softmax does", half["balanced_softmax"], ce, 11),
        near("alpha .5: FedProx - CE", (half["fedprox"] - ce).mean(), 0, 0.015),
        near("alpha .5: focal - CE", (half["focal"] - ce).mean(), 0, 0.03),
        ("alpha .5: FedLC - CE", fedlc_gain, "> 0", fedlc_gain > 0),
        near("alpha .1: CE", low.mean(), 0.74, 0.035),
        near("alpha .1: la_post - CE", (tenth["la_post"] - low).mean(), 0.09, 0.03),
        ("alpha .1: FedLC - CE", fedlc_loss, "<= -0.040", fedlc_loss <= -0.04),
        wins("alpha .1: seeds where FedLC loses to CE", low, tenth["fedlc"], 10),
    ]


def table(found: dict[str, Scores]) -> str:
    """The yardstick beside what was measured, then every row's mean."""
    lines = []
    if {"alpha0.5", "alpha0.1"} <= found.keys():
        lines.append(f"{'':44} {'measured':>9}  expected")
        for what, figure, expected, holds in checks(found["alpha0.5"], found["alpha0.1"]):
            lines.append(f"{what:44} {figure:9.3f}  {expected:16} {'ok' if holds else 'DIFFERS'}")
    lines += ["", f"{'setting':10} {'row':18} seeds  macro recall, mean of the last 5 of 40 rounds (95 % t interval)"]
    for setting, rows in found.items():
        for label, values in rows.items():
            mean, low, high = t_interval(values.tolist(), 0.95)
            lines.append(f"{setting:10} {label:18} {len(values):5}  {mean:.3f}  ({low:.3f} to {high:.3f})")
    return "\n".join(lines).lstrip("\n") + "\n"


def write_last_client(seeds: int, to: Path) -> None:
    """What the two ways of rounding give the last client: its rows, and its rows of the three rarest classes."""
    with open(to / "last_client.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "seed", "rows", "minority_rows", "all_rows", "all_minority_rows"])
        for setting in ("alpha0.5", "floor"):
            for seed in range(seeds):
                config = validate(compose([*BASE, *SETTINGS[setting], f"seed={seed}"]))
                federation = prepare(config.data, config.partition, config.clients.count, seed)
                counts, rare = federation.counts, federation.counts[:, list(federation.minority)]
                writer.writerow([setting, seed, counts[-1].sum(), rare[-1].sum(), counts.sum(), rare.sum()])


def main() -> None:
    parser = parser_of(__file__, __doc__)
    parser.add_argument("settings", nargs="*", choices=[*TRUNKS, "last_client", []], help="default: all")
    parser.add_argument("--seeds", type=int, default=12)
    args = arguments(parser)
    write_last_client(args.seeds, args.to)
    if args.settings == ["last_client"]:
        return
    settings = [setting for setting in args.settings or TRUNKS if setting != "last_client"]
    plans = {setting: plan(setting, args.seeds, args.output) for setting in settings}
    for setting, configs in plans.items():
        run_to_csv(configs, args.to / f"{setting}.csv")
    publish(table(read(args.to)), args.to)


if __name__ == "__main__":
    main()
