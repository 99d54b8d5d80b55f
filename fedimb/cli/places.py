"""Options that several verbs share: where runs are, and which deployment's or node's folder is meant."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.deploy.coordinator.deployment import Deployment

OUTPUT_DIR = "runs"


def add_deployment(parser: argparse.ArgumentParser) -> None:
    """Add ``--deployment DIR``."""
    parser.add_argument(
        "--deployment", default=".", metavar="DIR", help="the deployment's folder (default: the current folder)"
    )


def add_home(parser: argparse.ArgumentParser) -> None:
    """Add ``--home DIR``."""
    parser.add_argument(
        "--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else the working folder)"
    )


def open_deployment(args: argparse.Namespace, standby: bool = False) -> "Deployment":
    """Open the deployment named on the command line.

    Args:
        standby: whether a standby's folder will do.

    Raises:
        ConfigError: there is none, or it is a standby that nobody has taken over.
    """
    from fedimb.deploy.coordinator.deployment import Deployment
    from fedimb.deploy.coordinator.standby import refuse_standby

    deployment = Deployment.open(args.deployment)
    if not standby:
        refuse_standby(deployment)
    return deployment


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust``."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import the modules that a run folder from elsewhere names from the working folder: they run as you",
    )


def add_plot(parser: argparse.ArgumentParser) -> None:
    """Add ``--plot``."""
    parser.add_argument(
        "--plot", action="store_true", help="draw who holds what and the learning curves in the terminal, too"
    )


def refuse_plot(args: argparse.Namespace, why: str) -> None:
    """Refuse ``--plot`` where nothing is drawn, before any work.

    Raises:
        ConfigError: it was given.
    """
    from fedimb.errors import ConfigError

    if args.plot:
        raise ConfigError(f"--plot draws finished runs, and {why}: leave it out")


def add_accept(parser: argparse.ArgumentParser) -> None:
    """Add ``--accept-changes``."""
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: continue although code or data changed since the start; the run's journal says so",
    )
