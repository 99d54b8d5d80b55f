"""Run this site's node, in the foreground, until it is asked to stop (Ctrl-C, SIGTERM).

Starts Flower's SuperNode with a guard before it that lets nothing run but the fedimb installed here, watches over it,
starts it again when it dies (after 65 seconds: the coordinator takes up to 60 to notice), ends and starts it at the
hours and days of node.yaml. How it is: fedimb node status. Its log: logs/supernode.log in the node's folder.

  fedimb node run --home ~/st-anna

As a service: fedimb-node.service in the node's folder, which fedimb node init wrote.

Exit code 0 when asked to stop, 2 when a person must act first (the line says what), 1 with --once when it failed.
"""

import argparse
import time

LINE = "take part: run the node until asked to stop"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the action."""
    parser.add_argument("--home", metavar="DIR", help="the node's folder ($FEDIMB_NODE_HOME, else the working folder)")
    parser.add_argument("--once", action="store_true", help="start the process once, end with it")
    parser.add_argument(
        "--restart-after", type=float, default=65.0, metavar="S", help="seconds from a death to the next start (65)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    import logging

    from fedimb.deploy.home import NodeHome
    from fedimb.deploy.site.node_process import Patience
    from fedimb.deploy.site.observe import preflight
    from fedimb.deploy.site.supervisor import Supervisor

    home = NodeHome.open(args.home)
    handler = logging.StreamHandler()
    lines = logging.Formatter(f"%(asctime)sZ {home.site}: %(message)s", "%Y-%m-%dT%H:%M:%S")
    lines.converter = time.gmtime
    handler.setFormatter(lines)
    told = logging.getLogger("fedimb.node")
    told.addHandler(handler)
    told.propagate = False
    try:
        notices = preflight(home)
        for notice in notices:
            told.warning("%s", notice)
        return Supervisor(home, Patience(restart_s=args.restart_after), notices=notices).run(once=args.once)
    finally:
        told.removeHandler(handler)
        told.propagate = True
