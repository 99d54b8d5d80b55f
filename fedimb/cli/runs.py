"""``fedimb runs list|rm|gc``: lists and deletes run folders; never touches a run in use."""

import argparse
import sys
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR

if TYPE_CHECKING:
    from fedimb.cli.cleaning import Rubbish
    from fedimb.cli.facts import RunFacts
    from fedimb.cli.output.runs import RunsDeleted, RunsListing
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
List or delete run folders (below --output-dir):

  fedimb runs list                      all runs: status, rounds, scores if finished (? suspect), age, size
  fedimb runs list shifts               runs of the study 'shifts'
  fedimb runs rm fedavg-s0-103b96c9     delete a run, by name or the beginning of it (asks first)
  fedimb runs gc --days 14 --yes        delete runs that failed or were killed at least two weeks ago
  fedimb runs gc --cache                also delete the cache of decoded data (rebuilt when needed)

A run in use by a process is never deleted. MLflow keeps its copy of a deleted run."""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    runs = verbs.add_parser(
        "runs",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = runs.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="a table of runs")
    listing.add_argument("study", nargs="?", metavar="STUDY", help="only runs of this study")
    listing.set_defaults(handler=list_runs)
    remove = actions.add_parser("rm", help="delete runs")
    remove.add_argument("runs", nargs="+", metavar="RUN", help="folder, name, or the beginning of a name")
    remove.set_defaults(handler=remove_runs)
    collect = actions.add_parser("gc", help="delete old unfinished runs and leftovers of crashes")
    collect.add_argument(
        "--days", type=float, default=7.0, metavar="N", help="only runs unfinished for at least N days (default 7)"
    )
    collect.add_argument("--cache", action="store_true", help="also delete the cache of decoded data and pictures")
    collect.set_defaults(handler=collect_garbage)
    for action in (listing, remove, collect):
        action.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")
    for action in (remove, collect):
        action.add_argument("--yes", action="store_true", help="do not ask")


def list_runs(args: argparse.Namespace) -> "RunsListing":
    """``fedimb runs list``."""
    from fedimb.cli.facts import read_facts
    from fedimb.cli.find import run_folders
    from fedimb.cli.output.runs import ListedRun, RunsListing
    from fedimb.errors import ConfigError, nearest
    from fedimb.rundir.seal import Damaged

    studies: dict[str, list[RunFacts]] = {}
    for folder in run_folders(args.output_dir):
        try:
            studies.setdefault(folder.parent.name, []).append(read_facts(folder))
        except Damaged as error:  # the others are still listed
            print(f"fedimb: {error}", file=sys.stderr)
    if args.study is not None and args.study not in studies:
        raise ConfigError(f"no study '{args.study}' below {args.output_dir}.{nearest(args.study, studies)}")
    wanted = {name: runs for name, runs in studies.items() if args.study in (None, name)}
    listed = RunsListing(runs=[ListedRun.from_facts(run) for runs in wanted.values() for run in runs])
    if args.json:
        return listed
    if not studies:
        print(f"no runs below {args.output_dir} (start one: fedimb run)")
    for position, (name, runs) in enumerate(wanted.items()):
        print(f"{chr(10) if position else ''}{name}:")
        print("\n".join(f"  {line}" for line in table(runs)))
    return listed


def table(runs: "list[RunFacts]") -> list[str]:
    """Lines below 100 columns, one per row of each run; what belongs to the whole run stands on its first line."""
    from fedimb.cli.facts import age, shown_age, shown_bytes, size_of
    from fedimb.text import WIDTH, aligned, plain, shorten, width

    left, right = [["run", "status", "row"]], [["seed", "rounds", "macro", "minority", "age", "size"]]
    for run in runs:
        whole = [str(run.seed), f"{run.done}/{run.total}", shown_age(age(run)), shown_bytes(size_of(run.path))]
        for at, label in enumerate(run.labels or ("",)):
            scores = run.scores.get(label, {})
            recalls = [_score(scores.get(name)) for name in ("macro_recall", "minority_recall")]
            marked = f"{label} ?" if label in run.suspect else label
            status = "suspect" if run.suspect else run.status
            left.append([run.path.name, status, marked] if at == 0 else ["", "", marked])
            right.append([*whole[:2], *recalls, *whole[2:]] if at == 0 else ["", "", *recalls, "", ""])
    figures = aligned(right, left=0)
    longest = max(len(run.path.name) for run in runs)
    room = WIDTH - 2 - max(map(len, figures)) - 2 - len("finished") - 4
    name_width = min(longest, max(24, room - 18))
    cells = [
        [_ends(name, name_width), status, shorten(plain(row, None), room - name_width)] for name, status, row in left
    ]
    texts = aligned(cells, left=3)
    edge = max(map(width, texts))
    return [f"{text}{' ' * (edge - width(text))}  {line}" for text, line in zip(texts, figures, strict=True)]


def _ends(name: str, columns: int) -> str:
    """The name cut in its middle: its end, seed and hash, tells runs apart."""
    return name if len(name) <= columns else f"{name[: columns - 20]}..{name[-18:]}"


def _score(value: float | None) -> str:
    if value is None:
        return "-"
    return "n/a" if value != value else f"{value:.3f}"


def remove_runs(args: argparse.Namespace) -> "RunsDeleted":
    """``fedimb runs rm``: all of them or, when one is in use or unknown, none."""
    from fedimb.cli.cleaning import Rubbish, confirmed, delete_run, held
    from fedimb.cli.facts import size_of
    from fedimb.cli.find import find_run

    folders = list(dict.fromkeys(find_run(word, args.output_dir).absolute() for word in args.runs))
    with held(folders):
        plan = [Rubbish(folder, size_of(folder), "run") for folder in folders]
        if not confirmed(plan, args.yes):
            return _deleted([], 1)
        for folder in folders:
            tracked = (folder / "tracking.json").exists()
            delete_run(folder)
            print(f"deleted {folder}" + ("; MLflow keeps its copy" if tracked else ""))
    return _deleted(plan)


def collect_garbage(args: argparse.Namespace) -> "RunsDeleted":
    """``fedimb runs gc``."""
    from fedimb.cli.cleaning import confirmed, delete, find_rubbish
    from fedimb.cli.facts import shown_bytes
    from fedimb.errors import ConfigError

    if not args.days >= 0:
        raise ConfigError(f"--days {args.days}: give a number of at least 0")
    plan = find_rubbish(args.output_dir, args.days, args.cache)
    if not plan:
        print("nothing to free")
        return _deleted([])
    if not confirmed(plan, args.yes):
        return _deleted([], 1)
    freed = [one for one in plan if delete(one)]
    print(f"freed {shown_bytes(sum(one.size for one in freed))}")
    return _deleted(freed)


def _deleted(gone: "list[Rubbish]", exit_code: int = 0) -> "RunsDeleted":
    from fedimb.cli.output.runs import Deleted, RunsDeleted

    things = [Deleted(path=str(one.path), bytes=one.size, why=one.why) for one in gone]
    return RunsDeleted(deleted=things, freed_bytes=sum(one.size for one in gone), exit_code=exit_code)
