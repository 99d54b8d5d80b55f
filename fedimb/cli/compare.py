"""``fedimb compare``: runs a study from its YAML file and writes its tables, statistics and report."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Run a study and compare its rows. A study is a YAML file with settings (problems), rows (strategies) and seeds; every
row is run in every setting with every seed, next to reference rows: always predicting the majority class, training at
each client alone, training on all data in one place, FedAvg, and FedAvg with logit adjustment after training. All rows
make the same number of local steps and try the same number of configurations. Finished runs are
repeated only if their code, data or versions have changed (docs/compare.md).

  fedimb compare experiments/baselines/study.yaml
  fedimb compare study.yaml rounds=10 --workers 2   settings for every run, after the study's own
  fedimb compare study.yaml --dry-run              list rows, settings and the number of runs
  fedimb compare runs/baselines                     print the tables of finished runs again
  fedimb compare mlflow:baselines                   the same for an MLflow experiment

A study file:

  name: losses
  base: [data=digits, model=mlp]
  grid: {partition.alpha: [0.5, 0.1]}
  rows: {focal: [loss=focal], fedprox: [aggregator=fedprox]}
  seeds: 12
  tune: {grid: {local.lr: [0.1, 0.2, 0.4]}, seeds: 5}"""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    from fedimb.cli.study import add_options

    compare = verbs.add_parser("compare", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    compare.add_argument("study", metavar="STUDY", help="YAML file, folder of runs, or mlflow:EXPERIMENT")
    compare.add_argument("words", nargs="*", metavar="key=value", help="settings for every run")
    compare.add_argument("--uri", help="MLflow store for mlflow:EXPERIMENT (default: the one in runs/)")
    add_options(compare)
    compare.set_defaults(handler=compare_command)


def compare_command(args: argparse.Namespace) -> int:
    """``fedimb compare``. Returns 0, or 1 if a run failed (the other runs are still done)."""
    from fedimb.cli.study import command_line, conclude, workers
    from fedimb.errors import ConfigError
    from fedimb.study.compare import compare, study_folder
    from fedimb.study.design import allowed, read_study

    source = Path(args.study).expanduser()
    given = command_line("compare", [args.study, *args.words])
    if args.study.startswith("mlflow:") or source.is_dir():
        if args.words:
            raise ConfigError("settings can only be given with a study's YAML file; existing runs keep theirs")
        return _existing_runs(args, source, given)
    study = read_study(source)
    from fedimb.study.cells import plan

    cells, tasks = plan(study, None, args.words)
    folder = study_folder(tasks)
    if args.dry_run:
        print(
            f"{study.name}: {len(study.setting_words)} settings, {len(study.labels)} rows, {len(study.seed_list)} seeds"
        )
        print("\n".join(f"  setting  {name}" for name in study.setting_words))
        print("\n".join(f"  row      {label}" for label in study.labels))
        trials = 0 if study.tune is None else allowed(study) * study.tune.seeds
        tuned = f", after about {trials * len(tasks) // len(study.seed_list)} tuning runs" if trials else ""
        print(f"{len(cells)} results from {len(tasks)} runs{tuned}, to {folder}")
        return 0
    done = compare(study, args.words, workers(args, folder), given)
    return conclude(done.results, done.folder, done.failures, not args.no_report, study.margin)


def _existing_runs(args: argparse.Namespace, source: Path, command: str) -> int:
    from fedimb.cli.study import conclude
    from fedimb.study.compare import margin_of
    from fedimb.study.folders import collect

    if not args.study.startswith("mlflow:"):
        return conclude(collect(source, command), source, [], not args.no_report, margin_of(source))
    from fedimb.study.experiment import of_experiment

    name = args.study.removeprefix("mlflow:")
    results = of_experiment(name, args.uri)
    folder = Path("runs") / f"{name}.mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return conclude(results, folder, [], not args.no_report)
