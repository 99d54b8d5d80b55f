"""Make a new key for this node, and a new join file. The old key is gone: the node that runs now goes on with it until
it is restarted, and is let in again once the coordinator ran fedimb deploy rotate with the new join file.

  fedimb node rotate"""

import argparse

LINE = "make a new key and a new join file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")
    parser.add_argument("--contact", metavar="TEXT", help="whom the coordinator may call (default: as before)")


def run(args: argparse.Namespace) -> None:
    """Replace key, key.pub and SITE.join.json."""
    from fedimb.deploy.home import NodeHome
    from fedimb.deploy.joining import read_join
    from fedimb.deploy.site.identity import new_identity

    home = NodeHome.open(args.home)
    before = home.file(f"{home.site}.join.json")
    contact = args.contact if args.contact is not None else read_join(before).contact if before.is_file() else ""
    join = new_identity(home.root, home.site, contact)
    print(f"Send to the coordinator:  {before}\nRead out to them:         {join.key_fingerprint}")
    print("When they ran fedimb deploy rotate with it, restart fedimb node run.")
