"""Make a deployment's folder: certificate authority, server certificate with its names, settings, nginx's
configuration, a systemd unit, and a README with the steps for real machines.

  fedimb deploy init heart-study --host fl.example.org
  fedimb deploy init heart-study --host 10.1.2.3 --port 443 --to /srv/heart-study

Read the fingerprint it prints to every site, by telephone: with it they know the authority is yours."""

import argparse

LINE = "make a deployment's folder: certificates, settings, units, README"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("name", metavar="NAME", help="a-z, 0-9 and '-', as in heart-study")
    parser.add_argument("--host", required=True, metavar="H", help="name or IP address under which sites reach it")
    parser.add_argument("--port", type=int, default=9443, metavar="P", help="the one port sites need (default 9443)")
    parser.add_argument(
        "--superlink-port", type=int, default=9092, metavar="P", help="Flower's SuperLink, on 127.0.0.1 (default 9092)"
    )
    parser.add_argument("--to", metavar="DIR", help="the new folder (default: ./NAME)")


def run(args: argparse.Namespace) -> None:
    """Make it, and print the fingerprint and what to do next."""
    import shlex
    from pathlib import Path

    from fedimb.deploy.coordinator.creation import create_deployment
    from fedimb.deploy.pki import fingerprint, format_fingerprint

    root = Path(args.to or args.name).expanduser().absolute()
    deployment = create_deployment(root, args.name, args.host, args.port, args.superlink_port)
    config, place = deployment.config, shlex.quote(str(root))
    digest = format_fingerprint(fingerprint(deployment.file("ca.crt").read_bytes()))
    print(
        f"{root} is the folder of {config.name}. Keep ca.key in it secret.\n\n"
        f"Fingerprint of ca.crt, to be read out to each site by telephone:\n  {digest}\n\n"
        f"Next, here (README.md has every step):\n"
        f"  fedimb deploy up --deployment {place}\n"
        f"At each site, with your ca.crt:\n"
        f"  fedimb node init SITE --host {config.host} --port {config.port} --ca ca.crt --fingerprint 'FINGERPRINT'\n"
        f"Then, here, with what the site sends back:\n"
        f"  fedimb deploy add-site SITE.join.json --deployment {place}"
    )
