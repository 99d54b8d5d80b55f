"""``fedimb run``: starts, resumes, shows or estimates one configuration. Imports are local, so that help is fast."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.places import add_accept, add_plot, add_trust, refuse_plot

if TYPE_CHECKING:
    from fedimb.cli.output.results import RunFinished
    from fedimb.cli.output.runs import Configuration, Cost
    from fedimb.cli.verbs import Verbs
    from fedimb.plain import Settings
    from fedimb.rundir.result import RunResult

_WAIT_S = 1.0
"""Seconds that a command waits at its end for MLflow, after the result is printed."""

_RUN = """\
Run one configuration. Settings are given as key=value; parts (loss, aggregator, ...) are chosen by name:

  fedimb run                                        FedAvg + cross-entropy on long-tailed digits, 10 Ray clients
  fedimb run loss=balanced_softmax seed=3           another loss, another seed
  fedimb run aggregator=fedprox aggregator.proximal_mu=0.1 data.imbalance_factor=100
  fedimb run calibration=[none,la_post,tau]         train once, score three calibrations of the model
  fedimb run engine=inline rounds=5                everything in this process, e.g. for a debugger
  fedimb run engine=inline --plot                   draw who holds what and the learning curves, too
  fedimb run --dry-run                              estimate steps, bytes and minutes; run nothing
  fedimb run --resume runs/default/fedavg-s0-...    continue after a crash
  fedimb run --repeat runs/default/buffered-s0-...  simulate a run at sites again, in the order of its replies

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
    mode.add_argument(
        "--repeat",
        metavar="RUN",
        help="simulate a run at sites without rounds again, in the order in which its replies came",
    )
    add_plot(run)
    add_trust(run)
    add_accept(run)
    run.set_defaults(handler=run_command)


def run_command(args: argparse.Namespace) -> "RunFinished | Configuration | Cost":
    """``fedimb run``."""
    if args.show or args.dry_run:
        refuse_plot(args, "--show and --dry-run run nothing")
    if args.resume:
        return _resume(args)
    if args.repeat:
        return _repeat(args)
    from fedimb.config.compose import compose
    from fedimb.tracking.sender import sender_of

    folders = [Path(d) for d in args.config_dir]
    if args.show or args.dry_run:
        return _estimated(args, compose(args.overrides, folders))
    tracking = compose((), folders, shared=args.overrides).get("tracking")
    # The sender starts before torch is imported, which takes as long: words are checked by parts that import it.
    with sender_of(tracking, _WAIT_S) as sender:
        from fedimb.config.validate import validate

        config = validate(compose(args.overrides, folders))
        from fedimb.serverapp.launch import launch

        return shown(launch(config, tracked=sender or True), args.json, plot=args.plot)


def _estimated(args: argparse.Namespace, raw: "Settings") -> "Configuration | Cost":
    """``fedimb run --show`` and ``--dry-run``."""
    from fedimb.cli.output.runs import Configuration, Cost
    from fedimb.config.validate import validate

    config = validate(raw)
    if args.show:
        if not args.json:
            print(json.dumps(config.model_dump(), indent=2))
        return Configuration(configuration=config.model_dump())
    from fedimb.serverapp.estimate import estimate

    cost = estimate(config)
    if not args.json:
        print(cost.table())
    return Cost.model_validate(vars(cost))


def _resume(args: argparse.Namespace) -> "RunFinished":
    """``fedimb run --resume``."""
    from fedimb.cli.find import find_run
    from fedimb.errors import ConfigError
    from fedimb.tracking.sender import sender_of

    if args.overrides:
        raise ConfigError("--resume takes no settings: a run continues with the configuration it was started with")
    folder = find_run(args.resume)
    with sender_of(_tracking_of(folder), _WAIT_S) as sender:
        from fedimb.registry.targets import trusted
        from fedimb.serverapp.launch import resume

        with trusted(args.trust):
            result = resume(folder, tracked=sender or True, accept_changes=args.accept_changes)
            return shown(result, args.json, plot=args.plot)


def _repeat(args: argparse.Namespace) -> "RunFinished":
    """``fedimb run --repeat``: a run's configuration on simulated clients, into ``runs``; then weights are compared.

    Raises:
        RunFailed: the weights are other ones.
    """
    from fedimb.cli.find import find_run
    from fedimb.config.compose import compose
    from fedimb.config.load import from_json, to_json
    from fedimb.config.overrides import set_words
    from fedimb.errors import RunFailed
    from fedimb.rundir.folder import RunFolder
    from fedimb.rundir.stored import read_config
    from fedimb.serverapp.launch import launch
    from fedimb.serverapp.recorded import differing_weights, mark_differing

    folder = find_run(args.repeat)
    tree = json.loads(to_json(read_config(RunFolder.open(folder))))
    tree |= {"output_dir": "runs", "engine": compose(["engine=inline"])["engine"]}
    set_words(tree, args.overrides)
    result = launch(from_json(json.dumps(tree)), arrivals=folder)
    finished = shown(result, args.json, plot=args.plot)
    if wrong := differing_weights(folder, result.folder):
        mark_differing(result.folder, wrong)
        raise RunFailed(wrong)
    return finished


def _tracking_of(folder: Path) -> object:
    """The ``tracking`` of a run's configuration; None if that cannot be read, which `resume` then explains."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config.get("tracking") if isinstance(config, dict) else None


def shown(result: "RunResult", as_json: bool, refuse: bool = True, plot: bool = False) -> "RunFinished":
    """Print the panel of a finished run unless JSON is wanted, and return what that holds.

    Args:
        refuse: whether a suspect result that the configuration refuses ends the command with exit code 3.
        plot: draw who holds what and the learning curves below the panel.

    Raises:
        RunSuspect: it does, and text is wanted: after the panel.
    """
    from fedimb.cli.output.results import RunFinished
    from fedimb.report.panel import panels

    if not as_json:
        print(panels(result), flush=True)
    if plot:
        from fedimb.report.html.run import study_of_run
        from fedimb.report.terminal import draw_study

        draw_study(study_of_run(result.folder))
    if not as_json and refuse:
        result.raise_if_refused()
    return RunFinished.from_result(result, refuse)
