"""``fedimb show`` prints a run; ``fedimb track`` sends it to MLflow."""

import argparse
import sys
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR, add_plot

if TYPE_CHECKING:
    from fedimb.cli.facts import RunFacts
    from fedimb.cli.output.results import RunFinished, RunUnfinished
    from fedimb.cli.output.runs import TrackingSent
    from fedimb.cli.verbs import Verbs

_SHOW = """\
Print a run: scores with intervals, recall per class from the most to the least frequent, where the model is.
For an unfinished run: its progress, and how to continue it.

  fedimb show runs/default/fedavg-s0-103b96c9       a run folder
  fedimb show 103b96c9                              the same by the hash in its name
  fedimb show 103b96c9 --plot                       and draw who holds what and the learning curves
  fedimb show fedavg-s0                             or by the beginning of its name, or an MLflow run id"""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    show = verbs.add_parser("show", description=_SHOW, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_run(show)
    add_plot(show)
    show.set_defaults(handler=show_command)


def register_track(verbs: "Verbs") -> None:
    """Add the verb ``track`` to ``argparse``'s subparsers."""
    track = verbs.add_parser("track", description="Send a run folder to MLflow, e.g. after an outage of the server.")
    actions = track.add_subparsers(dest="action", metavar="ACTION", required=True)
    sync = actions.add_parser("sync", help="send everything MLflow does not have yet; safe to repeat")
    _add_run(sync)
    sync.set_defaults(handler=sync_command)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder, name, or the beginning of a name")
    parser.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")


def show_command(args: argparse.Namespace) -> "RunFinished | RunUnfinished":
    """``fedimb show``: a finished run's panel, or an unfinished run's progress and how to continue it."""
    from fedimb.cli.facts import read_facts
    from fedimb.cli.find import find_run
    from fedimb.rundir.folder import RunFolder
    from fedimb.study.reuse import stale_mark

    facts = read_facts(find_run(args.run, args.output_dir))
    folder = RunFolder.open(facts.path)
    folder.check("config.json", "metrics.jsonl", "partition.json", "partition.npz", "environment.json")
    if facts.status != "finished":
        if not args.json:
            print("\n".join(_unfinished(facts)))
        if args.plot:
            print("note        --plot draws finished runs", file=sys.stderr if args.json else sys.stdout)
        found: RunFinished | RunUnfinished = _unfinished_output(facts)
    else:
        from fedimb.cli.run import shown
        from fedimb.rundir.result import RunResult

        found = shown(RunResult.read(facts.path), args.json, refuse=False, plot=args.plot)
    if note := folder.not_sealed():
        print(f"note        {note}")
    if stale := stale_mark(facts.path):
        print(f"note        stale: {stale}, since this run was made", file=sys.stderr if args.json else sys.stdout)
    return found


def _unfinished_output(facts: "RunFacts") -> "RunUnfinished":
    from fedimb.cli.facts import age, latest_scores
    from fedimb.cli.output.results import RunUnfinished

    return RunUnfinished(
        folder=str(facts.path),
        status=facts.status,
        reason=facts.reason,
        labels=list(facts.labels),
        seed=facts.seed,
        rounds_done=facts.done,
        rounds=facts.total,
        scores=dict(latest_scores(facts.path)),
        idle_s=age(facts),
    )


def _unfinished(facts: "RunFacts") -> list[str]:
    from fedimb.cli.facts import age, latest_scores, shown_age

    lines = [
        f"{', '.join(facts.labels) or facts.path.name}, seed {facts.seed}: {facts.status}",
        f"rounds      {facts.done} of {facts.total}, last activity {shown_age(age(facts))} ago",
    ]
    if facts.reason:
        lines.append(f"reason      {facts.reason}")
    scores = latest_scores(facts.path)
    if "macro_recall" in scores:
        lines.append(
            f"so far      macro recall {scores['macro_recall']:.3f}, minority recall {scores['minority_recall']:.3f}"
            f" in round {facts.done}"
        )
    how = "a process is working on it" if facts.status == "running" else f"fedimb run --resume {facts.path}"
    return [*lines, f"run folder  {facts.path}", f"continue    {how}"]


def sync_command(args: argparse.Namespace) -> "TrackingSent":
    """``fedimb track sync``."""
    from fedimb.cli.find import find_run
    from fedimb.cli.output.runs import TrackingSent

    folder = find_run(args.run, args.output_dir)
    from fedimb.tracking.mlflow import charts_link, sync
    from fedimb.tracking.store import shown

    report = sync(folder)
    print(f"sent {report.sent_points} points; {len(report.runs)} MLflow runs: {', '.join(report.runs)}")
    command, url = charts_link(report.uri, report.experiment)
    print(f"{command}\n{url}")
    return TrackingSent(
        folder=str(folder),
        sent_points=report.sent_points,
        runs=report.runs,
        uri=shown(report.uri),
        experiment=report.experiment,
        charts=url,
    )
