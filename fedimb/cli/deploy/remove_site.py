"""Leave a site out from now on: its key no longer counts. Runs it took part in keep their records, and no other site's
file changes. Flower takes a key once: to come back, the site makes a new one (fedimb node rotate).

  fedimb deploy remove-site st-anna"""

import argparse

from fedimb.cli.deploy.folder import add_folder, bring_up_to_date, opened

LINE = "leave a site out from now on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    parser.add_argument("site", metavar="SITE", help="its name")
    add_folder(parser)


def run(args: argparse.Namespace) -> None:
    """Remove it, and have a running SuperLink forget it."""
    from fedimb.deploy.coordinator.sites import remove_site

    deployment = opened(args)
    remove_site(deployment, args.site)
    print(f"{args.site} no longer takes part.")
    bring_up_to_date(deployment)
