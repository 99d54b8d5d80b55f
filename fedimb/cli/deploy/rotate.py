"""Replace a site's key by the one in its new join file (fedimb node rotate wrote it at the site). Do it between runs:
the site is away from now until its node was restarted with the new key. No other site's file changes.

  fedimb deploy rotate st-anna st-anna.join.json"""

import argparse

from fedimb.cli.deploy.folder import add_folder, bring_up_to_date, opened

LINE = "replace a site's key by the one in its new join file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("site", metavar="SITE", help="its name")
    parser.add_argument("join", metavar="SITE.join.json", help="the new join file")
    add_folder(parser)


def run(args: argparse.Namespace) -> None:
    """Replace it, at a running SuperLink too."""
    from pathlib import Path

    from fedimb.deploy.coordinator.sites import rotate
    from fedimb.deploy.joining import read_join
    from fedimb.errors import ConfigError

    deployment, join = opened(args), read_join(Path(args.join).expanduser())
    if join.site != args.site:
        raise ConfigError(f"{args.join} is of site '{join.site}', not of '{args.site}': which one is meant?")
    rotate(deployment, join)
    print(f"{join.site} has a new key, to be compared by telephone: {join.key_fingerprint}")
    bring_up_to_date(deployment)
