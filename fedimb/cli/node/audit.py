"""The audit log: every message that left, before it left, and every decision.

  fedimb node audit verify                          was a line edited, deleted, moved, or the end cut?
  fedimb node audit verify --heads st-anna.jsonl    also against what the coordinator was told with each message
  fedimb node audit export --from 2026-01 --to 2026-03 --as csv --out quarter.csv

Exit code of verify: 0 as written, 2 not; the first bad line is named."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.deploy.audit_log import AuditLog

LINE = "verify or export the log of everything that left"


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
