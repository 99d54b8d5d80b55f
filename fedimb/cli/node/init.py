"""Make this site's node: its key, which is born here and never leaves, its settings, and the join file for the
coordinator. Before: get ca.crt from the coordinator, and its fingerprint from them by telephone.

  fedimb node init st-anna --host fl.example.org --port 9443 --ca ca.crt --fingerprint "3f2a 91..." \\
      --contact "Dr. Jürgen Müller, +49 30 1234"

Afterwards: send SITE.join.json (it holds no secret), and read the key's fingerprint out to the coordinator."""

import argparse

LINE = "make this site's node: key, settings, join file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("site", metavar="SITE", help="its name: a-z, 0-9 and '-', as in st-anna")
    parser.add_argument("--host", required=True, metavar="H", help="the coordinator's name or IP address")
    parser.add_argument("--port", type=int, required=True, metavar="P", help="the coordinator's port")
    parser.add_argument("--ca", required=True, metavar="FILE", help="the coordinator's ca.crt")
    parser.add_argument("--fingerprint", required=True, metavar="HEX", help="of ca.crt, as it was read out to you")
    parser.add_argument("--contact", default="", metavar="TEXT", help="whom the coordinator may call")
    parser.add_argument("--to", metavar="DIR", help="the new folder (default: ./SITE)")


def run(args: argparse.Namespace) -> None:
    """Make it, and print what to send and what to do next."""
    import shlex
    from pathlib import Path

    from fedimb.deploy.site.identity import init_node

    root = Path(args.to or args.site).expanduser().absolute()
    ca, place = Path(args.ca).expanduser(), shlex.quote(str(root))
    join = init_node(root, args.site, (args.host, args.port), ca, args.fingerprint, args.contact)
    print(
        f"{root} is {join.site}'s node. Its key is in it and stays there.\n\n"
        f"Send to the coordinator:  {root / (join.site + '.join.json')}\n"
        f"Read out to them:         {join.key_fingerprint}\n\n"
        f"Next: decide in {root / 'node.yaml'} what may leave and what the node may use; then\n"
        f"  fedimb node data add PATH --name NAME --tags TAG --home {place}\n"
        f"  fedimb node check --home {place}\n"
        f"  fedimb node run --home {place}"
    )
