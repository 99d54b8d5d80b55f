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


def add_waits(parser: argparse.ArgumentParser, join_s: float, away_s: float, otherwise: str = "") -> None:
    """Add ``--join S`` and ``--away S``: how long a coordinator waits for its sites. `waits_of` reads them.

    Args:
        join_s, away_s: their defaults, in seconds.
        otherwise: where other defaults hold, for the help.
    """
    waits = (("--join", join_s, "for sites at the start"), ("--away", away_s, "for a site that goes away"))
    for word, seconds, why in waits:
        text = f"seconds to wait {why} (default: {seconds:g}{otherwise})"
        parser.add_argument(word, type=float, metavar="S", help=text)


def waits_of(args: argparse.Namespace, join_s: float, away_s: float) -> tuple[float, float]:
    """Seconds of ``--join`` and ``--away``, or those given here.

    Raises:
        ConfigError: they are not positive numbers.
    """
    from math import inf

    from fedimb.errors import ConfigError

    for word, seconds in (("--join", args.join), ("--away", args.away)):
        if seconds is not None and not 0 < seconds < inf:
            raise ConfigError(f"{word} {seconds:g}: give a number of seconds above 0")
    return (join_s if args.join is None else args.join, away_s if args.away is None else args.away)


def add_accept(parser: argparse.ArgumentParser) -> None:
    """Add ``--accept-changes``."""
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="with --resume: continue although code or data changed since the start; the run's journal says so",
    )
