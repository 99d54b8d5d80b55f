"""Approve a study plan, or let synthetic samples go. Read it first: fedimb node inbox ITEM, fedimb outbox show ID.

  fedimb node approve plan-1a2b3c4d --by "Dr. Anna Weiß"

Who decided and when stands in the audit log. A plan can be rejected later: nothing under it runs from then on."""

import argparse

LINE = "approve a plan or a release"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("item", metavar="ITEM", help="as fedimb node inbox lists it, or its beginning")
    parser.add_argument("--by", metavar="NAME", help="who decides (default: the account at work)")
    parser.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")


def run(args: argparse.Namespace) -> None:
    """Decide, and say what it means."""
    from fedimb.deploy.home import NodeHome
    from fedimb.deploy.site.inbox import answer

    print(answer(NodeHome.open(args.home), args.item, "approved", args.by))
