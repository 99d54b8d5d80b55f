"""``fedimb outbox list|show|release|reject|recall``: synthetic samples that wait for a person's decision."""

import argparse
from typing import TYPE_CHECKING

from fedimb.plain import JsonObject

if TYPE_CHECKING:
    from pathlib import Path

    from fedimb.cli.output.people import BatchDecided, BatchesListing, BatchShown
    from fedimb.cli.verbs import Verbs
    from fedimb.generation.outbox import Outbox

_ABOUT = """\
Synthetic samples that passed the export gate wait in the site's outbox (docs/export-gate.md):

  fedimb outbox list                             all batches below sites/ (or $FEDIMB_SITE_DIR)
  fedimb outbox show 4f0a                        verdicts, figures, paths of the contact sheets
  fedimb outbox release 4f0a --classes 3 7       release these classes (--all: all that wait)
  fedimb outbox reject 4f0a --classes 3 --reason "shows a name"
  fedimb outbox recall 4f0a --reason "consent withdrawn"   also marks the runs that used it

Give a batch by its id or a unique prefix of it, a class by its id or name."""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    outbox = verbs.add_parser("outbox", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = outbox.add_subparsers(dest="action", metavar="ACTION", required=True)
    shown = actions.add_parser("list", help="list batches and their state")
    shown.add_argument("folder", nargs="?", metavar="FOLDER", help="folder with outboxes (default: sites)")
    shown.set_defaults(handler=list_batches)
    for name, handler, line in (
        ("show", show_batch, "show verdicts and figures of a batch"),
        ("release", release_classes, "release classes"),
        ("reject", reject_classes, "reject classes permanently"),
        ("recall", recall_batch, "recall a batch and mark the runs that used it"),
    ):
        one = actions.add_parser(name, help=line)
        one.add_argument("batch", metavar="ID", help="batch id, or a unique prefix of it")
        one.add_argument("--folder", metavar="DIR", help="folder with outboxes (default: sites)")
        if name in ("release", "reject"):
            which = one.add_mutually_exclusive_group(required=True)
            which.add_argument("--classes", nargs="+", metavar="CLASS", help="class ids or names")
            which.add_argument("--all", action="store_true", help="all classes that wait")
        if name in ("reject", "recall"):
            one.add_argument("--reason", required=True, metavar="TEXT", help="why; the reason is stored")
        one.set_defaults(handler=handler)


def list_batches(args: argparse.Namespace) -> "BatchesListing":
    """``fedimb outbox list``."""
    from fedimb.cli.output.people import BatchesListing, ListedBatch
    from fedimb.text import aligned

    batches = []
    rows = [["batch", "made", "samples", "waiting", "released", "rejected", "runs", "recalled"]]
    for box in _outboxes(root := _root(args.folder)):
        for id in box.ids():
            about, states = box.about(id), list(box.state(id).values())
            counts = [str(states.count(state)) for state in ("waiting", "released", "rejected")]
            total = str(sum(about["samples"].values()))
            rows.append([id, about["made"][:16], total, *counts, str(len(box.users(id))), box.recalled(id) or "-"])
            batches.append(
                ListedBatch(
                    batch=id,
                    folder=str(box.folder / id),
                    made=about["made"],
                    samples=int(total),
                    waiting=int(counts[0]),
                    released=int(counts[1]),
                    rejected=int(counts[2]),
                    runs=len(box.users(id)),
                    recalled=box.recalled(id),
                )
            )
    if not args.json:
        print("\n".join(aligned(rows, left=1)) if len(rows) > 1 else f"no batches in outboxes below {root}")
    return BatchesListing(batches=batches)


def show_batch(args: argparse.Namespace) -> "BatchShown":
    """``fedimb outbox show``: all classes that were checked, including those that did not pass."""
    box, id = _find(args)
    about, state = box.about(id), box.state(id)
    if args.json:
        return _shown(box, id)
    print(f"batch {id}, {sum(about['samples'].values())} samples, made {about['made'][:19]}, in {box.folder / id}")
    if (reason := box.recalled(id)) is not None:
        print(f"recalled: {reason}")
    for label, verdict in about["audit"].items():
        now = state.get(int(label))
        print(f"\nclass {_names(about).get(int(label), label)}: gate {verdict['state']}" + (f", {now}" if now else ""))
        for line in verdict["reasons"]:
            print(f"  {line}")
        if why := box.reason(id, int(label)):
            print(f"  rejected: {why}")
        figures = [f"{name} {'n/a' if v is None else f'{v:.4g}'}" for name, v in verdict["figures"].items()]
        print("  " + ", ".join(figures))
        if box.sheet(id, int(label)).exists():
            print(f"  look at {box.sheet(id, int(label))}")
    if users := box.users(id):
        print("\nused by " + ", ".join(users))
    return _shown(box, id)


def _shown(box: "Outbox", id: str) -> "BatchShown":
    from fedimb.cli.output.people import BatchClass, BatchShown

    about, state, names = box.about(id), box.state(id), _names(box.about(id), plain=True)
    return BatchShown(
        batch=id,
        folder=str(box.folder / id),
        made=about["made"],
        samples=sum(about["samples"].values()),
        recalled=box.recalled(id),
        classes=[
            BatchClass(
                label=int(label),
                name=names.get(int(label), label),
                gate=verdict["state"],
                state=state.get(int(label)),
                reasons=verdict["reasons"],
                rejected=box.reason(id, int(label)) or None,
                figures=verdict["figures"],
                sheet=str(sheet) if (sheet := box.sheet(id, int(label))).exists() else None,
            )
            for label, verdict in about["audit"].items()
        ],
        runs=list(box.users(id)),
    )


def release_classes(args: argparse.Namespace) -> "BatchDecided":
    """``fedimb outbox release``."""
    from fedimb.cli.output.people import BatchDecided

    box, id = _find(args)
    chosen = _classes(args, box, id)
    box.release(id, chosen)
    print(f"batch {id}: released {_said(box, id, chosen)}")
    return BatchDecided(batch=id, decision="released", classes=chosen)


def reject_classes(args: argparse.Namespace) -> "BatchDecided":
    """``fedimb outbox reject``."""
    from fedimb.cli.output.people import BatchDecided

    box, id = _find(args)
    chosen = _classes(args, box, id)
    box.reject(id, chosen, args.reason)
    print(f"batch {id}: rejected {_said(box, id, chosen)}")
    return BatchDecided(batch=id, decision="rejected", classes=chosen)


def recall_batch(args: argparse.Namespace) -> "BatchDecided":
    """``fedimb outbox recall``."""
    from pathlib import Path

    from fedimb.cli.output.people import BatchDecided

    box, id = _find(args)
    users = box.recall(id, args.reason)
    print(f"batch {id}: recalled; {len(users)} runs used it")
    for run in users:
        print(f"  {run}: {'marked' if Path(run).is_dir() else 'not reachable: tell whoever has it'}")
    lost = [run for run in users if not Path(run).is_dir()]
    return BatchDecided(batch=id, decision="recalled", classes=[], runs=list(users), unreachable=lost)


def _root(folder: str | None) -> "Path":
    import os
    from pathlib import Path

    from fedimb.annotation.oracles import SITE_DIR

    return Path(folder or os.environ.get(SITE_DIR) or "sites").expanduser()


def _outboxes(root: "Path") -> "list[Outbox]":
    from fedimb.errors import DataError
    from fedimb.generation.outbox import Outbox
    from fedimb.generation.outbox.box import STATE

    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder with the sites' folders, or set FEDIMB_SITE_DIR")
    folders = {file.parent.parent for file in root.rglob(f"outbox/*/{STATE}")}
    folders |= {file.parent.parent for file in root.glob(f"*/{STATE}") if root.name == "outbox"}
    return [Outbox(folder) for folder in sorted(folders)]


def _find(args: argparse.Namespace) -> "tuple[Outbox, str]":
    from fedimb.errors import ConfigError, nearest

    boxes = _outboxes(root := _root(args.folder))
    found = [(box, id) for box in boxes for id in box.ids() if args.batch and id.startswith(args.batch)]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(str(box.folder / id) for box, id in found)
        raise ConfigError(
            f"'{args.batch}' matches {len(found)} batches: {places}; give more of the id, or use --folder"
        )
    near = nearest(args.batch, (id for box in boxes for id in box.ids()))
    raise ConfigError(f"no batch '{args.batch}' in an outbox below {root}.{near}")


def _classes(args: argparse.Namespace, box: "Outbox", id: str) -> list[int]:
    from fedimb.errors import ConfigError, nearest

    if args.all:
        waiting = [label for label, state in box.state(id).items() if state == "waiting"]
        if not waiting:
            raise ConfigError(f"no class of batch {id} is waiting; see fedimb outbox show {id}")
        return waiting
    names = {name: label for label, name in _names(box.about(id), plain=True).items()}
    chosen = []
    for word in args.classes:
        if word not in names and not word.isdigit():
            raise ConfigError(f"batch {id} has no class '{word}'.{nearest(word, names)}")
        chosen.append(names[word] if word in names else int(word))
    return chosen


def _names(about: JsonObject, plain: bool = False) -> dict[int, str]:
    """Class id -> name, prefixed with the id unless ``plain``."""
    names = about["about"].get("class_names", [])
    known = {label: str(names[label]) for label in map(int, about["audit"]) if label < len(names)}
    return known if plain else {label: f"{label} ({name})" for label, name in known.items()}


def _said(box: "Outbox", id: str, chosen: list[int]) -> str:
    names = _names(box.about(id))
    return ", ".join(names.get(label, str(label)) for label in chosen)
