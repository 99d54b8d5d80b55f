"""Everything that waits for a person at this site: study plans, labels, releases. Nothing runs meanwhile.

fedimb node inbox             what waits
fedimb node inbox --all       plans decided on as well
fedimb node inbox plan-1a2b   read a plan (the same as page in plans/: plan.html)"""

import argparse

LINE = "what waits for a person: plans, labels, releases"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("item", nargs="?", metavar="ITEM", help="a plan to print")
    parser.add_argument("--all", action="store_true", help="plans decided on as well")
    parser.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")


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
