"""Can this node take part? Look at data, versions, key, disk, proxy, the coordinator and the clock; nothing is started.

  fedimb node check                       all but what needs a study plan
  fedimb node check --plan plan.json      ... and whether the data fit the study: do this before approving it
  fedimb node check --json                the same for a monitoring system

Every record is read again, so that with many pictures it takes a while. Exit code 0, or 2 when a line says fail: such a
node does not train."""

import argparse

LINE = "can this node take part: data, versions, key, disk, network, clock"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("--plan", metavar="FILE", help="plan.json, as the coordinator sent it")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")


def run(args: argparse.Namespace) -> int:
    """Print what was found."""
    import json

    from fedimb.deploy.home import NodeHome
    from fedimb.deploy.site.check import facts, fit, node_checks, open_plan

    home = NodeHome.open(args.home)
    found = []
    for check in node_checks(home, None if args.plan is None else open_plan(args.plan)):
        found.append(check)
        if not args.json:
            remedy = f": {check.remedy}" if check.remedy else ""
            print(f"{check.level:<4}  {check.name:<16}  {' '.join(check.found.split())}{remedy}", flush=True)
    if args.json:
        print(json.dumps(facts(home, found), ensure_ascii=False, indent=1))
    return 0 if fit(found) else 2
