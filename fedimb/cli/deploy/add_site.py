"""Take a site in, with the join file it sent. No other site's file changes, and the servers may be running.

  fedimb deploy add-site st-anna.join.json

Compare the key's fingerprint it prints with what the site's engineer reads out: only then is the key the site's."""

import argparse

from fedimb.cli.deploy.folder import add_folder, bring_up_to_date, opened

LINE = "take a site in, with the join file it sent"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("join", metavar="SITE.join.json", help="what fedimb node init wrote at the site")
    add_folder(parser)


def run(args: argparse.Namespace) -> None:
    """Add it, register it where the SuperLink runs, print what to compare."""
    from pathlib import Path

    from fedimb import __version__
    from fedimb.deploy.coordinator.sites import add_site
    from fedimb.deploy.joining import read_join

    deployment, join = opened(args), read_join(Path(args.join).expanduser())
    add_site(deployment, join)
    print(f"{join.site} takes part. Contact: {join.contact or '(none given)'}")
    print(f"Its key, to be compared by telephone: {join.key_fingerprint}")
    if join.fedimb != __version__:
        print(f"Note: it has fedimb {join.fedimb}, here is {__version__}; fedimb node check there says if it matters.")
    bring_up_to_date(deployment)
