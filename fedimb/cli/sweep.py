"""``fedimb sweep``: runs every combination of given values on all cores, resumable, with one table at the end."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.output.studies import StudyFinished, SweepPlanned
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Run every combination of the given values, several runs at a time, and compare them. Finished runs are repeated only if
their code, data or versions have changed (docs/compare.md). Run the same command again to continue an
interrupted sweep.

  fedimb sweep loss=ce,balanced_softmax seed=0,1,2
  fedimb sweep partition.alpha=0.1,0.5 'calibration=[none,la_post]' seed=0,1,2,3,4 study=alphas
  fedimb sweep local.lr=0.1,0.2,0.4 --dry-run"""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    from fedimb.cli.places import add_plot
    from fedimb.cli.study import add_options

    sweep = verbs.add_parser("sweep", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    sweep.add_argument(
        "words", nargs="+", metavar="key=a,b,c", help="settings; all combinations of several values are run"
    )
    add_options(sweep)
    add_plot(sweep)
    sweep.set_defaults(handler=sweep_command)


def sweep_command(args: argparse.Namespace) -> "StudyFinished | SweepPlanned":
    """``fedimb sweep``. The exit code is 1 if a run failed (the other runs are still done)."""
    from fedimb.cli.output.studies import SweepPlanned
    from fedimb.cli.places import refuse_plot
    from fedimb.cli.study import command_line, conclude, workers
    from fedimb.study.collect import as_asked
    from fedimb.study.execute import execute, failures
    from fedimb.study.folders import of_runs
    from fedimb.study.sweep import sweep_tasks
    from fedimb.study.trunks import fold_trainings
    from fedimb.study.work import folder_of

    if args.dry_run:
        refuse_plot(args, "--dry-run runs nothing")
    configs, tasks = sweep_tasks(args.words)
    folder = folder_of(configs[0])
    if args.dry_run:
        more = fold_trainings(tasks)
        if not args.json:
            print(f"{len(tasks)} runs, to {folder}:")
            print("\n".join(f"  {task.what}" for task in tasks))
            if more:
                print(f"{more} more trainings without a fold, for tau=temperature: {len(tasks) + more} in all")
        return SweepPlanned(folder=str(folder), runs=[task.what for task in tasks], fold_trainings=more)
    working = workers(args, folder)
    done = execute(tasks, working, folder.name)
    lost = failures(tasks, done, working)
    paths = [path for task in tasks if (path := done[task.key].path) is not None]
    if not paths:
        from fedimb.errors import RunFailed

        raise RunFailed(f"none of {len(tasks)} runs finished; the first: {lost[0]}")
    results = of_runs(paths, folder.name, command_line("sweep", args.words))
    results = replace(results, results=as_asked(results.results, tasks, done))
    return conclude(args, results, folder, lost)
