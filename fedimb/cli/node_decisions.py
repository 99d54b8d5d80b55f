"""What people of a site decide and look up: ``fedimb node inbox``, ``approve``, ``reject``, ``audit``."""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.verbs import Action

if TYPE_CHECKING:
    from fedimb.deploy.audit_log import AuditLog


class Inbox(Action):
    """Everything that waits for a person at this site: study plans, labels, releases. Nothing runs meanwhile.

    fedimb node inbox             what waits
    fedimb node inbox --all       plans decided on as well
    fedimb node inbox plan-1a2b   read a plan (the same as page in plans/: plan.html)
    """

    name = "inbox"
    line = "what waits for a person: plans, labels, releases"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        parser.add_argument("item", nargs="?", metavar="ITEM", help="a plan to print")
        parser.add_argument("--all", action="store_true", help="plans decided on as well")
        parser.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")

    @staticmethod
    def run(args: argparse.Namespace) -> None:
        """Print the list, or a plan."""
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.approvals import load, received
        from fedimb.deploy.site.inbox import items
        from fedimb.deploy.study_plan.page import as_markdown
        from fedimb.errors import ConfigError
        from fedimb.text import aligned

        home = NodeHome.open(args.home)
        if args.item:
            wanted = args.item.removeprefix("plan-")
            found = [sha for sha in received(home) if sha.startswith(wanted)]
            if len(found) != 1:
                raise ConfigError(f"{len(found)} plans are called '{args.item}'; see fedimb node inbox --all")
            print(as_markdown(load(home, found[0])), end="")
            print(f"\nAs a page: {home.file('plans', found[0], 'plan.html')}")
            return
        found_items = items(home, args.all)
        if not found_items:
            print(f"nothing waits at {home.site}")
            return
        print("\n".join(aligned([["item", "state", "what"], *([i.id, i.state, i.text] for i in found_items)], left=3)))
        print("\nfedimb node approve ITEM | reject ITEM --reason TEXT; read a plan first: fedimb node inbox PLAN")


class Approve(Action):
    """Approve a study plan, or let synthetic samples go. Read it first: fedimb node inbox ITEM, fedimb outbox show ID.

      fedimb node approve plan-1a2b3c4d --by "Dr. Anna Weiß"

    Who decided and when stands in the audit log. A plan can be rejected later: nothing under it runs from then on.
    """

    name = "approve"
    line = "approve a plan or a release"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        parser.add_argument("item", metavar="ITEM", help="as fedimb node inbox lists it, or its beginning")
        parser.add_argument("--by", metavar="NAME", help="who decides (default: the account at work)")
        parser.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")

    @staticmethod
    def run(args: argparse.Namespace) -> None:
        """Decide, and say what it means."""
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.inbox import answer

        print(answer(NodeHome.open(args.home), args.item, "approved", args.by))


class Reject(Action):
    """Reject a study plan or a release, or withdraw the approval of a plan: nothing under it runs here from then on.

      fedimb node reject plan-1a2b3c4d --reason "purpose not covered by consent"

    The reason stays at the site, in the audit log; the coordinator reads only that the plan is rejected.
    """

    name = "reject"
    line = "reject a plan or a release, or withdraw an approval"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        parser.add_argument("item", metavar="ITEM", help="as fedimb node inbox lists it, or its beginning")
        parser.add_argument("--reason", required=True, metavar="TEXT", help="why; it stays at the site")
        parser.add_argument("--by", metavar="NAME", help="who decides (default: the account at work)")
        parser.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")

    @staticmethod
    def run(args: argparse.Namespace) -> None:
        """Decide, and say what it means."""
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.inbox import answer

        print(answer(NodeHome.open(args.home), args.item, "rejected", args.by, args.reason))


class Audit(Action):
    """The audit log: every message that left, before it left, and every decision.

      fedimb node audit verify                          was a line edited, deleted, moved, or the end cut?
      fedimb node audit verify --heads st-anna.jsonl    also against what the coordinator was told with each message
      fedimb node audit export --from 2026-01 --to 2026-03 --as csv --out quarter.csv

    Exit code of verify: 0 as written, 2 not; the first bad line is named.
    """

    name = "audit"
    line = "verify or export the log of everything that left"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's words."""
        home = argparse.ArgumentParser(add_help=False)
        home.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")
        actions = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
        verify = actions.add_parser("verify", help="is every line as it was written?", parents=[home])
        verify.add_argument("--heads", metavar="FILE", help="lines {line, sha} that the coordinator kept of this site")
        export = actions.add_parser("export", help="a period as CSV or JSON", parents=[home])
        export.add_argument("--from", dest="first", default="", metavar="DAY", help="as in 2026-03 or 2026-03-01 (UTC)")
        export.add_argument("--to", dest="last", default="", metavar="DAY", help="the last day, included")
        export.add_argument("--as", dest="form", choices=("csv", "json"), default="csv")
        export.add_argument("--out", metavar="FILE", help="where to (default: the terminal)")

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        """Verify or export."""
        from fedimb.deploy.audit_log import AuditLog
        from fedimb.deploy.home import NodeHome

        home = NodeHome.open(args.home)
        log = AuditLog(home.file("audit.jsonl"))
        return _verify(log, args.heads) if args.what == "verify" else _export(log, args)


def _verify(log: "AuditLog", heads: str | None) -> int:
    from pathlib import Path

    from fedimb.deploy.audit_chain import read_heads

    bad = log.verify(read_heads(Path(heads).expanduser()) if heads else ())
    if bad is not None:
        print(f"{log.path}: {bad}")
        return 2
    print(f"{log.path}: {log.head().line} lines, all as written")
    if not heads:
        print(
            "A log made up anew as a whole would look the same: compare with what the coordinator kept (--heads FILE)."
        )
    return 0


def _export(log: "AuditLog", args: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from fedimb.annotation.private import write_private

    data = log.export(args.form, _day(args.first), _day(args.last))
    if args.out:
        write_private(Path(args.out).expanduser().absolute(), data)
        print(f"wrote {args.out}; it says what left this site, so mind who reads it")
    else:
        sys.stdout.buffer.write(data)
    return 0


def _day(text: str) -> str:
    import re

    from fedimb.errors import ConfigError

    if text and not re.fullmatch(r"\d{4}(-\d\d(-\d\d)?)?", text):
        raise ConfigError(f"'{text}' is no day: write it as 2026, 2026-03 or 2026-03-01")
    return text
