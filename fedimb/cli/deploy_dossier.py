"""``fedimb deploy dossier``: the papers of a study for an authority."""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.verbs import Action

if TYPE_CHECKING:
    from pathlib import Path

    from fedimb.cli.output.coordinator import DossierWritten
    from fedimb.deploy.dossier import Dossier


class DossierAction(Action):
    """Gather what answers the items of the EU AI Act, the GDPR and FDA's PCCP guidance (docs/regulation.md) into one
    folder, with hashes and an index. It is no legal advice: the index says what is answered by which file, what is
    missing and how to make it, and what only people can answer.

      fedimb deploy dossier runs/heart/fairfal-s0-1f2e3d4c --to dossier --paper linz.json --paper st-anna.json
      fedimb deploy dossier RUN --to dossier --attach "GDPR 35(7)=dpia.pdf" --attach "AI Act 14=oversight.pdf"
      fedimb deploy dossier --check dossier

    --paper: what fedimb node papers wrote at a site. The exit code is 1 if an artefact is missing, or with --check a
    file is not as it was gathered. A run whose seal does not hold is refused.
    """

    name = "dossier"
    line = "gather a run's papers for an authority: index, files, hashes; what is missing"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("run", nargs="?", metavar="RUN", help="the folder of a finished run")
        parser.add_argument("--to", metavar="FOLDER", help="the new folder (default: ./dossier-RUN)")
        parser.add_argument(
            "--paper",
            action="append",
            default=[],
            metavar="FILE",
            help="a site's paper (fedimb node papers); repeatable",
        )
        parser.add_argument(
            "--attach",
            action="append",
            default=[],
            metavar="ITEM=FILE",
            help='a document that people wrote for an item, as in "GDPR 35(7)=dpia.pdf"; repeatable',
        )
        parser.add_argument("--check", metavar="FOLDER", help="check a dossier instead of making one")

    @staticmethod
    def run(args: argparse.Namespace) -> "DossierWritten":
        """Make or check it, and print what is missing."""
        from pathlib import Path

        from fedimb.cli.output.coordinator import DossierWritten
        from fedimb.deploy.dossier import check, gather
        from fedimb.errors import ConfigError

        if (args.run is None) == (args.check is None):
            raise ConfigError("give a run's folder, or --check with a dossier's")
        if args.check is not None:
            if args.to or args.paper or args.attach:
                raise ConfigError("--check goes without --to, --paper and --attach")
            found = check(Path(args.check).expanduser().absolute())
        else:
            run = Path(args.run).expanduser().absolute()
            to = Path(args.to or f"dossier-{run.name}").expanduser().absolute()
            found = gather(run, to, [Path(p).expanduser() for p in args.paper], _attachments(args.attach))
        if not args.json:
            print(text(found))
        return DossierWritten.from_dossier(found)


def _attachments(words: list[str]) -> "dict[str, Path]":
    from pathlib import Path

    from fedimb.errors import ConfigError

    found = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or not path:
            raise ConfigError(f'--attach {word}: write ITEM=FILE, as in "GDPR 35(7)=dpia.pdf"')
        if name in found:
            raise ConfigError(f"--attach {name} is given twice: give one document for an item")
        found[name] = Path(path).expanduser()
    return found


def text(found: "Dossier") -> str:
    """What a dossier holds and lacks, for a terminal."""
    lines = [f"not as it was gathered: {name}" for name in found.damaged]
    for one in found.missing:
        lines.append(f"missing: {one.artefact} ({', '.join(one.files)}), for {', '.join(one.items) or 'no item'}")
        lines.append(f"  make it with: {one.verb}")
    total = len(found.answered) + len(found.unanswered)
    lines.append(f"{len(found.answered)} of {total} items have all their artefacts ({found.files} files)")
    lines.append(f"{len(found.for_people)} items need a document that people write: see {found.folder / 'index.md'}")
    return "\n".join([*lines, f"dossier  {found.folder}"])
