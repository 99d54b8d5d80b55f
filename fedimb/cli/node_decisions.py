"""Decisions of people at a site, and their log: ``fedimb node inbox``, ``approve``, ``reject``, ``audit``."""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.places import add_home
from fedimb.cli.verbs import Action

if TYPE_CHECKING:
    from fedimb.cli.output.site import AuditExported, AuditVerified, Decided, InboxListing, PaperWritten, PlanShown
    from fedimb.deploy.audit_log import AuditLog


class Inbox(Action):
    """List everything that waits for a person at this site: study plans, labels, releases. Nothing runs meanwhile.

    fedimb node inbox             what is waiting
    fedimb node inbox --all       also plans that were decided on
    fedimb node inbox plan-1a2b   read a plan (also a page: plan.html in plans/)
    """

    name = "inbox"
    line = "list what waits for a person: plans, labels, releases"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("item", nargs="?", metavar="ITEM", help="plan to print")
        parser.add_argument("--all", action="store_true", help="also list plans that were decided on")
        add_home(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "InboxListing | PlanShown":
        """Print the list, or a plan."""
        from fedimb.cli.node_ledger import plan_costs
        from fedimb.cli.output.site import InboxListing, PlanShown, WaitingItem
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.approvals import load_plan, received_plans
        from fedimb.deploy.site.inbox import inbox_items
        from fedimb.deploy.study_plan.page import as_markdown
        from fedimb.errors import ConfigError
        from fedimb.text import aligned

        home = NodeHome.open(args.home)
        if args.item:
            wanted = args.item.removeprefix("plan-")
            found = [sha for sha in received_plans(home) if sha.startswith(wanted)]
            if len(found) != 1:
                raise ConfigError(f"{len(found)} plans match '{args.item}'; see fedimb node inbox --all")
            text, page = as_markdown(load_plan(home, found[0])), home.file("plans", found[0], "plan.html")
            if not args.json:
                print(f"{text}\n{plan_costs(home, f'plan-{found[0]}')[0]}\nAs a page: {page}")
            return PlanShown(sha=found[0], text=text, page=str(page))
        found_items = inbox_items(home, args.all)
        listed = InboxListing(site=home.site, items=[WaitingItem.of(item) for item in found_items])
        if args.json:
            return listed
        if not found_items:
            print(f"nothing is waiting at {home.site}")
            return listed
        print("\n".join(aligned([["item", "state", "what"], *([i.id, i.state, i.text] for i in found_items)], left=3)))
        print("\nfedimb node approve ITEM | reject ITEM --reason TEXT; read a plan first: fedimb node inbox PLAN")
        return listed


class Approve(Action):
    """Approve a study plan, or release synthetic samples. Look first: fedimb node inbox ITEM, fedimb outbox show ID.

      fedimb node approve plan-ID --by "Dr. Anna Weiß"                       ID: all 64 digits, as in the inbox
      fedimb node approve plan-1a2b3c4d --word disease --by "Dr. Anna Weiß"  with a word of the plan's purpose

    Compare the keys that it prints with the sites and the coordinator, by telephone.
    The audit log records who decided and when. A plan can be rejected later; nothing runs under it from then on.
    """

    name = "approve"
    line = "approve a study plan or a release of samples"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("item", metavar="ITEM", help="id from fedimb node inbox, or its beginning")
        parser.add_argument("--by", metavar="NAME", help="who decides (default: the current user account)")
        parser.add_argument(
            "--word", metavar="TEXT", help="a word of the plan's purpose, if its id is not given completely"
        )
        add_home(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "Decided":
        """Decide, and print what it means."""
        from fedimb.cli.node_ledger import plan_costs
        from fedimb.cli.output.site import Decided
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.inbox import decide_item

        home = NodeHome.open(args.home)
        table, before, after = plan_costs(home, args.item)
        print(table, end="")
        text = decide_item(home, args.item, "approved", args.by, word=args.word)
        print(text)
        return Decided(item=args.item, decision="approved", text=text, before=before, after=after)


class Reject(Action):
    """Reject a study plan or a release, or withdraw the approval of a plan: nothing runs under it here from then on.

      fedimb node reject plan-1a2b3c4d --reason "purpose not covered by consent"

    The reason stays at the site, in the audit log; the coordinator reads only that the plan is rejected.
    """

    name = "reject"
    line = "reject a study plan or a release, or withdraw an approval"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("item", metavar="ITEM", help="id from fedimb node inbox, or its beginning")
        parser.add_argument("--reason", required=True, metavar="TEXT", help="why; it stays at the site")
        parser.add_argument("--by", metavar="NAME", help="who decides (default: the current user account)")
        add_home(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "Decided":
        """Decide, and print what it means."""
        from fedimb.cli.output.site import Decided
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.inbox import decide_item
        from fedimb.errors import ConfigError

        if not args.reason.strip():
            raise ConfigError("--reason is empty: say why; it stays at the site, in the audit log")
        print(text := decide_item(NodeHome.open(args.home), args.item, "rejected", args.by, args.reason))
        return Decided(item=args.item, decision="rejected", text=text)


class Audit(Action):
    """Verify or export the audit log: every message that left (logged before it left) and every decision.

      fedimb node audit verify                          finds lines that were edited, deleted, moved or cut off
      fedimb node audit verify --heads st-anna.jsonl    also compares with what the coordinator received
      fedimb node audit export --from 2026-01 --to 2026-03 --as csv --out quarter.csv

    Exit code of verify: 0 if all lines are as written, else 2, with the first bad line.
    """

    name = "audit"
    line = "verify or export the log of everything that left"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        home = argparse.ArgumentParser(add_help=False)
        add_home(home)
        actions = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
        verify = actions.add_parser("verify", help="check that every line is as it was written", parents=[home])
        verify.set_defaults(handler=_verify_log)
        verify.add_argument("--heads", metavar="FILE", help="lines {line, sha} that the coordinator kept for this site")
        export = actions.add_parser("export", help="export a period as CSV or JSON", parents=[home])
        export.set_defaults(handler=_export_log)
        export.add_argument(
            "--from", dest="first", default="", metavar="DAY", help="first day, as in 2026-03 or 2026-03-01 (UTC)"
        )
        export.add_argument("--to", dest="last", default="", metavar="DAY", help="last day, inclusive")
        export.add_argument("--as", dest="form", choices=("csv", "json"), default="csv")
        export.add_argument("--out", metavar="FILE", help="output file (default: the terminal)")


def _open_log(args: argparse.Namespace) -> "AuditLog":
    from fedimb.deploy.audit_log import AuditLog
    from fedimb.deploy.home import NodeHome

    return AuditLog(NodeHome.open(args.home).file("audit.jsonl"))


def _verify_log(args: argparse.Namespace) -> "AuditVerified":
    from pathlib import Path

    from fedimb.cli.output.site import AuditVerified
    from fedimb.deploy.audit_chain import read_heads

    log, heads = _open_log(args), args.heads
    bad = log.verify(read_heads(Path(heads).expanduser()) if heads else ())
    if bad is not None:
        print(f"{log.path}: {bad}")
        return AuditVerified(log=str(log.path), lines=None, bad_line=str(bad), compared=bool(heads), exit_code=2)
    print(f"{log.path}: {log.head().line} lines, all as written")
    if not heads:
        print(
            "A log that was forged as a whole would also pass: compare it with what the coordinator kept (--heads "
            "FILE)."
        )
    return AuditVerified(log=str(log.path), lines=log.head().line, bad_line=None, compared=bool(heads))


def _export_log(args: argparse.Namespace) -> "AuditExported":
    import json
    import sys
    from pathlib import Path

    from fedimb.annotation.private import write_private
    from fedimb.cli.output.site import AuditExported

    log = _open_log(args)
    within = _period(args.first, args.last)
    if args.json and not args.out:
        return AuditExported(file=None, lines=json.loads(log.export("json", *within)))
    data = log.export(args.form, *within)
    if args.out:
        write_private(Path(args.out).expanduser().absolute(), data)
        count = len(json.loads(log.export("json", *within)))
        print(
            f"wrote {args.out}, {count} of {log.head().line} lines; it lists what left this site, so take care who can "
            "read it"
        )
    else:
        sys.stdout.buffer.write(data)
    return AuditExported(file=args.out or None, lines=None)


def _period(first: str, last: str) -> tuple[str, str]:
    """A period in days, months or years, either end open; an empty one would look like a log of nothing.

    Raises:
        ConfigError: one is not a day, month or year, or the last one is before the first.
    """
    import re
    from datetime import date

    from fedimb.errors import ConfigError

    for text in filter(None, (first, last)):
        try:
            whole = re.fullmatch(r"\d{4}(-\d\d){0,2}", text) is not None
            date.fromisoformat(f"{text}{'-01-01'[len(text) - 4 :]}" if whole else "")
        except ValueError:
            raise ConfigError(f"'{text}' is not a day: write it as 2026, 2026-03 or 2026-03-01") from None
    if first and last and last < first[: len(last)]:
        raise ConfigError(f"--to {last} is before --from {first}: exchange them")
    return first, last


class Papers(Action):
    """Write what this site can show of a study to an authority into one file: its approval, what was asked about its
    data, a summary of its audit log, its sharing policy, the data's version, incidents by kind. No patient's value is
    in it, and no reason of a decision. The coordinator gathers these files: fedimb deploy dossier RUN --paper FILE.

      fedimb node papers plan-1f2e3d4c --to st-anna.json
    """

    name = "papers"
    line = "write this site's paper about a study plan, for an authority"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("plan", metavar="PLAN", help="the plan's hash, or its beginning")
        parser.add_argument("--to", required=True, metavar="FILE", help="the new file")
        add_home(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "PaperWritten":
        """Write the file."""
        from pathlib import Path

        from fedimb.cli.output.site import PaperWritten
        from fedimb.deploy.home import NodeHome
        from fedimb.deploy.site.papers import paper_text, site_paper
        from fedimb.errors import ConfigError

        target = Path(args.to).expanduser().absolute()
        if target.exists():
            raise ConfigError(f"{target} exists: give another --to")
        paper = site_paper(NodeHome.open(args.home), args.plan)
        target.write_text(paper_text(paper), encoding="utf-8")
        print(f"{paper.site}: plan {paper.plan} was {paper.approval['state']} by {paper.approval['by']}")
        print("Read it before you send it:")
        print(target)
        return PaperWritten(site=paper.site, plan=paper.plan, file=str(target))
