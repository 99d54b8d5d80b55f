"""``fedimb compare``: runs a study from its YAML file and writes its tables, statistics and report."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.paired import print_pairs, second_model
from fedimb.cli.places import OUTPUT_DIR, add_plot, refuse_plot

if TYPE_CHECKING:
    from fedimb.cli.output.models import ModelsCompared
    from fedimb.cli.output.studies import StudyFinished, StudyPlanned
    from fedimb.cli.verbs import Verbs
    from fedimb.study.design import Study

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
  fedimb compare runs/baselines --plot              and draw who holds what and the learning curves
  fedimb compare mlflow:baselines                   the same for an MLflow experiment
  fedimb compare 103b96c9 7f02a1de                  two finished runs on the same test rows
  fedimb compare baselines:la_post baselines:focal  two rows of a study, seed by seed and over its seeds

Each row beats, is level with, below or undecided against the bar: in every setting the best of la_post,
uniform+la_post, ncm and lda, chosen on validation rows. A study over several data sets also has mean ranks, and tests
of the contrasts that it names; `fedimb study register` fixes these before the runs, and compare says whether a study is
registered or exploratory.

Two runs are tested on the same test rows (RUN:ROW for another row than a run's first): DeLong's test of AUROC,
McNemar's test and a paired bootstrap of recall, per class and in the mean. STUDY:ROW takes all seeds of a study's row.

A study file:

  name: losses
  base: [model=mlp]
  data_sets: [digits, glass]
  grid: {partition.alpha: [0.5, 0.1]}
  rows: {focal: [loss=focal], fedprox: [aggregator=fedprox]}
  seeds: 12
  tune: {grid: {local.lr: [0.1, 0.2, 0.4]}, seeds: 5}"""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    from fedimb.cli.study import add_options

    compare = verbs.add_parser("compare", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    compare.add_argument("study", metavar="STUDY", help="YAML file, folder of runs, mlflow:EXPERIMENT, or a model")
    compare.add_argument("words", nargs="*", metavar="key=value", help="settings for every run, or the second model")
    compare.add_argument("--uri", help="MLflow store for mlflow:EXPERIMENT (default: the one in runs/)")
    compare.add_argument(
        "--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where two models are looked for ({OUTPUT_DIR})"
    )
    add_options(compare)
    add_plot(compare)
    compare.set_defaults(handler=compare_command)


def compare_command(args: argparse.Namespace) -> "ModelsCompared | StudyFinished | StudyPlanned":
    """``fedimb compare``. The exit code is 1 if a run failed (the other runs are still done)."""
    from fedimb.cli.study import command_line, conclude, workers
    from fedimb.cli.verbs import split_words
    from fedimb.errors import ConfigError
    from fedimb.study.cells import plan
    from fedimb.study.compare import compare, study_folder
    from fedimb.study.design import read_study

    args.study, args.words = split_words(args.study, args.words)
    if (other := second_model(args.study, args.words)) is not None:
        return print_pairs(args, args.study, other)
    if args.output_dir != OUTPUT_DIR:
        raise ConfigError(
            "--output-dir says where two models are looked for; the runs of a study are where its settings say: give "
            f"output_dir={args.output_dir}"
        )
    source = Path(args.study).expanduser()
    given = command_line("compare", [args.study, *args.words])
    if args.study.startswith("mlflow:") or source.is_dir():
        if args.words:
            raise ConfigError("settings can only be given with a study's YAML file; existing runs keep theirs")
        return _existing_runs(args, source, given)
    study = read_study(source)
    if args.dry_run:
        refuse_plot(args, "--dry-run runs nothing")
        return _dry_run(args, study)
    folder = study_folder(plan(study, None, args.words)[1])
    done = compare(study, args.words, workers(args, folder), given, source)
    return conclude(args, done.results, done.folder, done.failures, study.margin)


def _dry_run(args: argparse.Namespace, study: "Study") -> "StudyPlanned":
    """What a study would run, having refused what the run would refuse before work."""
    from fedimb.cli.output.studies import StudyPlanned
    from fedimb.study.compare import check_study, study_folder
    from fedimb.study.design import allowed
    from fedimb.study.trunks import fold_trainings

    cells, tasks, bar_tasks = check_study(study, args.words)
    folder = study_folder(tasks)
    trials = 0 if study.tune is None else allowed(study) * study.tune.seeds
    planned = StudyPlanned(
        study=study.name,
        folder=str(folder),
        settings=list(study.setting_words),
        rows=study.labels,
        seeds=study.seed_list,
        results=len(cells),
        runs=len(tasks),
        tuning_runs=trials * len(tasks) // len(study.seed_list),
        bar_runs=len(bar_tasks),
        fold_trainings=fold_trainings(tasks),
    )
    if not args.json:
        print(f"{study.name}: {len(planned.settings)} settings, {len(planned.rows)} rows, {len(planned.seeds)} seeds")
        print("\n".join(f"  setting  {name}" for name in planned.settings))
        print("\n".join(f"  row      {label}" for label in planned.rows))
        before = [f"about {planned.tuning_runs} tuning runs"] if trials else []
        before += [f"{planned.bar_runs} runs that choose the bar"] if planned.bar_runs else []
        after = f", after {' and '.join(before)}" if before else ""
        print(f"{len(cells)} results from {len(tasks)} runs{after}, to {folder}")
        if folds := planned.fold_trainings:
            print(f"{folds} more trainings without a fold, for tau=temperature: {len(tasks) + folds} in all")
    return planned


def _existing_runs(args: argparse.Namespace, source: Path, command: str) -> "StudyFinished":
    from fedimb.cli.study import conclude
    from fedimb.study.compare import margin_of
    from fedimb.study.folders import collect

    if not args.study.startswith("mlflow:"):
        return conclude(args, collect(source, command), source, [], margin_of(source))
    from fedimb.study.experiment import of_experiment

    name = args.study.removeprefix("mlflow:")
    results = of_experiment(name, args.uri)
    folder = Path("runs") / f"{name}.mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return conclude(args, results, folder, [])
