"""``fedimb run``: starts, resumes, shows or estimates one configuration. Imports are local, so that help is fast."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.places import add_accept, add_trust

if TYPE_CHECKING:
    from fedimb.cli.output import Configuration, Cost, RunFinished
    from fedimb.cli.verbs import Verbs
    from fedimb.rundir.result import RunResult

_RUN = """\
Run one configuration. Settings are given as key=value; parts (loss, aggregator, ...) are chosen by name:

  fedimb run                                        FedAvg + cross-entropy on long-tailed digits, 10 Ray clients
  fedimb run loss=balanced_softmax seed=3           another loss, another seed
  fedimb run aggregator=fedprox aggregator.proximal_mu=0.1 data.imbalance_factor=100
  fedimb run calibration=[none,la_post,tau]         train once, score three calibrations of the model
  fedimb run engine=inline rounds=5                everything in this process, e.g. for a debugger
  fedimb run --dry-run                              estimate steps, bytes and minutes; run nothing
  fedimb run --resume runs/default/fedavg-s0-...    continue after a crash

`fedimb list` shows all parts and their settings, `fedimb run --show` prints the whole configuration."""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    run = verbs.add_parser("run", description=_RUN, formatter_class=argparse.RawDescriptionHelpFormatter)
    run.add_argument("overrides", nargs="*", metavar="key=value", help="settings, e.g. rounds=20 loss=ce")
    run.add_argument(
        "--config-dir", action="append", default=[], metavar="DIR", help="folder with your own configuration groups"
    )
    mode = run.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="print an estimate of the run's cost, and stop")
    mode.add_argument("--show", action="store_true", help="print the resolved configuration, and stop")
    mode.add_argument("--resume", metavar="RUN", help="continue this run")
    add_trust(run)
    add_accept(run)
    run.set_defaults(handler=run_command)


def run_command(args: argparse.Namespace) -> "RunFinished | Configuration | Cost":
    """``fedimb run``."""
    from fedimb.cli import output

    if args.resume:
        from fedimb.cli.find import find_run
        from fedimb.errors import ConfigError

        if args.overrides:
            raise ConfigError("--resume takes no settings: a run continues with the configuration it was started with")
        folder = find_run(args.resume)
        from fedimb.registry.targets import trusted
        from fedimb.serverapp.launch import resume

        with trusted(args.trust):
            return shown(resume(folder, accept_changes=args.accept_changes), args.json)
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate

    config = validate(compose(args.overrides, [Path(d) for d in args.config_dir]))
    if args.show:
        import json

        if not args.json:
            print(json.dumps(config.model_dump(), indent=2))
        return output.Configuration(configuration=config.model_dump())
    if args.dry_run:
        from fedimb.serverapp.estimate import estimate

        cost = estimate(config)
        if not args.json:
            print(cost.table())
        return output.Cost.model_validate(vars(cost))
    from fedimb.serverapp.launch import launch

    return shown(launch(config), args.json)


def shown(result: "RunResult", as_json: bool, refuse: bool = True) -> "RunFinished":
    """Print the panel of a finished run unless JSON is wanted, and return what that holds.

    Args:
        refuse: whether a suspect result that the configuration refuses ends the command with exit code 3.

    Raises:
        RunSuspect: it does, and text is wanted: after the panel.
    """
    from fedimb.cli.output import RunFinished
    from fedimb.report.panel import panels

    if not as_json:
        print(panels(result), flush=True)
        if refuse:
            result.raise_if_refused()
    return RunFinished.from_result(result, refuse)
