"""``fedimb worklist status|check``: progress of labelling by people, and mistakes in the files they returned."""

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.annotation.status import CycleStatus
    from fedimb.cli.output.people import FileChecked, WorklistsListing
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Worklists of runs with strategy.<method>.oracle.name=worklist (docs/worklist.md):

  fedimb worklist status                     all worklists below sites/ (or $FEDIMB_SITE_DIR)
  fedimb worklist status sites/client-003    worklists of one site
  fedimb worklist check .../cycle-03/returned/anna.csv
                                             list all mistakes in a returned file, before resuming
  fedimb run --resume RUN                    continue when the labels are complete

Exit code of check: 0 if there are no mistakes, else 2."""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    worklist = verbs.add_parser("worklist", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = worklist.add_subparsers(dest="action", metavar="ACTION", required=True)
    status = actions.add_parser("status", help="show the readers' progress")
    status.add_argument("folder", nargs="?", metavar="FOLDER", help="folder with worklists (default: sites)")
    status.set_defaults(handler=show_status)
    check = actions.add_parser("check", help="list mistakes in a returned file")
    check.add_argument("file", metavar="FILE", help="CSV or Label Studio export")
    check.add_argument(
        "--worklist", metavar="DIR", help="the cycle's folder, such as cycle-03 (default: found from the file's place)"
    )
    check.set_defaults(handler=check_file)


def show_status(args: argparse.Namespace) -> "WorklistsListing":
    """``fedimb worklist status``."""
    import os
    from pathlib import Path

    from fedimb.annotation.oracles import SITE_DIR
    from fedimb.annotation.status import cycle_statuses, find_worklists
    from fedimb.cli.output.people import Cycle, Worklist, WorklistsListing

    root = Path(args.folder or os.environ.get(SITE_DIR) or "sites").expanduser()
    found = {folder: cycle_statuses(folder) for folder in find_worklists(root)}
    if not found:
        print(f"no worklists below {root}")
    for position, (folder, cycles) in enumerate(found.items()):
        if not args.json:
            print(f"{chr(10) if position else ''}{folder}:")
            print("\n".join(f"  {line}" for line in table(cycles)))
    return WorklistsListing(
        worklists=[
            Worklist(folder=str(folder), cycles=[Cycle.of(one) for one in cycles]) for folder, cycles in found.items()
        ]
    )


def table(found: "list[CycleStatus]") -> list[str]:
    """One line per cycle, followed by the mistakes."""
    from fedimb.text import aligned

    rows = [["cycle", "items", "labelled", "cannot judge", "missing", "to decide", "kappa", "state"]]
    notes: list[str] = []
    for one in found:
        numbers = [one.cycle, one.items, one.labelled, one.unjudged, one.missing, one.undecided]
        rows.append([*map(str, numbers), "-" if math.isnan(one.kappa) else f"{one.kappa:.2f}", one.state])
        if one.left_out:
            notes.append(f"cycle {one.cycle}: {one.left_out} rows left out: more rows of a patient than per_patient")
        if one.state == "to adjudicate":
            notes.append(f"cycle {one.cycle}: fill in {one.folder.name}/adjudication.csv and save it in returned/")
        notes += one.problems
    return [*aligned(rows, left=0), *notes]


def check_file(args: argparse.Namespace) -> "FileChecked":
    """``fedimb worklist check``."""
    from pathlib import Path

    from fedimb.annotation import status
    from fedimb.cli.output.people import FileChecked

    problems, answered, items = status.check_file(Path(args.file), Path(args.worklist) if args.worklist else None)
    for problem in problems:
        print(problem)
    if problems:
        print(f"mistakes: {len(problems)}; nothing is imported until all are fixed")
    else:
        print(f"no mistakes; {answered} of {items} items answered")
    return FileChecked(
        file=args.file, problems=list(problems), answered=answered, items=items, exit_code=2 if problems else 0
    )
