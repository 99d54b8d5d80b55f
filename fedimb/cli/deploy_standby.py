"""``fedimb deploy standby`` and ``take-over``: a copy of the coordinator on another machine, and its use."""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.places import add_deployment, open_deployment
from fedimb.cli.verbs import Action

if TYPE_CHECKING:
    from fedimb.cli.output.coordinator import StandbyTaken, StandbyWritten
    from fedimb.deploy.coordinator.standby import StandbyCopy


class Standby(Action):
    """Copy this deployment, which may be working, into a folder that another machine can take over (docs/scale.md):
    keys, sites, plans, the SuperLink's database and the runs, each as a resume could use it. The copy refuses to be a
    coordinator until fedimb deploy take-over. Keep it as secret as the original.

      fedimb deploy standby --to /mnt/other-machine/heart-study
      fedimb deploy standby --to /mnt/other-machine/heart-study --every 60     until Ctrl-C
    """

    name = "standby"
    line = "copy the deployment for another machine to take over"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        parser.add_argument("--to", required=True, metavar="DIR", help="the copy's folder: new, or of an earlier copy")
        parser.add_argument("--every", type=float, metavar="S", help="copy again every S seconds, until Ctrl-C")
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "StandbyWritten":
        """Copy once, or again and again."""
        import math
        import signal
        import threading
        from pathlib import Path

        from fedimb.cli.output.coordinator import StandbyWritten
        from fedimb.deploy.coordinator.standby import copy_deployment
        from fedimb.errors import ConfigError, RunFailed

        if args.every is not None and not (math.isfinite(args.every) and args.every >= 1):
            raise ConfigError(f"--every {args.every:g}: give at least 1 second")
        deployment, target = open_deployment(args), Path(args.to)
        made = copy_deployment(deployment, target)
        _print_copy(made, args.json)
        if args.every is not None:
            stop = threading.Event()
            numbers = (signal.SIGINT, signal.SIGTERM)
            before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
            try:
                while not stop.wait(args.every):
                    try:
                        made = copy_deployment(deployment, target)
                    except RunFailed as error:  # the next copy may succeed; until then the copy before stays
                        print(f"warning: {error}", flush=True)
                    else:
                        _print_copy(made, args.json)
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        return StandbyWritten(folder=made.folder, copied=made.copied, sites=made.sites, runs=made.runs)


class TakeOver(Action):
    """Make a standby's folder the coordinator. Do this only when the first coordinator is down and stays down; while
    one answers at the deployment's host and port it is refused.

      fedimb deploy take-over --deployment /srv/heart-study
    """

    name = "take-over"
    line = "make a standby's folder the coordinator"

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's arguments."""
        add_deployment(parser)

    @staticmethod
    def run(args: argparse.Namespace) -> "StandbyTaken":
        """Take over, and print what to do next."""
        import shlex

        from fedimb.cli.output.coordinator import StandbyTaken
        from fedimb.deploy.coordinator.standby import take_over

        deployment = open_deployment(args, standby=True)
        runs, config = take_over(deployment), deployment.config
        place = shlex.quote(str(deployment.root))
        print(f"{deployment.root} is now the coordinator of {config.name}. Next:")
        print(f"  let {config.host} lead to this machine, port {config.port}")
        print(f"  fedimb deploy up --deployment {place}")
        for run in runs:
            folder = shlex.quote(str(deployment.file("runs", run)))
            print(f"  fedimb deploy run --resume {folder} --deployment {place}")
        return StandbyTaken(name=config.name, folder=str(deployment.root), runs=runs)


def _print_copy(made: "StandbyCopy", json: bool) -> None:
    """One line for each copy."""
    if json:
        return
    shown = ", ".join(f"{run} ({'no round yet' if n is None else f'{n} rounds'})" for run, n in made.runs.items())
    print(f"{made.copied}  {made.folder}: {made.sites} nodes, runs: {shown or 'none'}", flush=True)
