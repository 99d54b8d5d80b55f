"""Reject a study plan or a release, or withdraw the approval of a plan: nothing under it runs here from then on.

  fedimb node reject plan-1a2b3c4d --reason "purpose not covered by consent"

The reason stays at the site, in the audit log; the coordinator reads only that the plan is rejected."""

import argparse

LINE = "reject a plan or a release, or withdraw an approval"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("item", metavar="ITEM", help="as fedimb node inbox lists it, or its beginning")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; it stays at the site")
    parser.add_argument("--by", metavar="NAME", help="who decides (default: the account at work)")
    parser.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")


def run(args: argparse.Namespace) -> None:
    """Decide, and say what it means."""
    from fedimb.deploy.home import NodeHome
    from fedimb.deploy.site.inbox import answer

    print(answer(NodeHome.open(args.home), args.item, "rejected", args.by, args.reason))
