"""The word every ``fedimb deploy`` action but ``init`` has in common: which deployment's folder it works on."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.deploy.coordinator.deployment import Deployment


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add ``--deployment DIR``."""
    parser.add_argument(
        "--deployment", default=".", metavar="DIR", help="the deployment's folder (default: the working folder)"
    )


def opened(args: argparse.Namespace) -> "Deployment":
    """The folder named on the command line; ConfigError if it is none."""
    from fedimb.deploy.coordinator.deployment import Deployment

    return Deployment.open(args.deployment)


def bring_up_to_date(deployment: "Deployment") -> None:
    """Tell a running SuperLink what changed, and print what came of it; without one, say when it will be told."""
    from fedimb.deploy.coordinator.registration import reconcile
    from fedimb.deploy.coordinator.superlink import healthy

    if not healthy(deployment):
        print("The servers are down: this takes effect with the next fedimb deploy up.")
        return
    for line in reconcile(deployment):
        print(line)
