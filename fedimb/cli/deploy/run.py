"""Run a study plan at the sites. The servers must be up (fedimb deploy up); sites that have not decided are waited for.

  fedimb deploy run 4f9a1c2e                     the plan whose hash begins so, as it stands
  fedimb deploy run 4f9a1c2e seed=1 rounds=20    with settings that the plan lets vary
  fedimb deploy run --resume runs/default/...    go on after a crash, or when a person has decided

A run that waits for a person ends with exit code 75 and says for whom; nothing stays running meanwhile."""

import argparse

LINE = "run a study plan at the sites, or resume one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    from fedimb.cli.deploy.folder import add_folder

    parser.add_argument("plan", nargs="?", metavar="PLAN", help="beginning of a plan's hash, or a plan.json")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings the plan lets vary")
    parser.add_argument("--resume", metavar="RUN", help="go on with this run folder")
    parser.add_argument("--join", type=float, default=300.0, metavar="S", help="wait so long for sites (300 s)")
    parser.add_argument("--away", type=float, default=1800.0, metavar="S", help="and for one that goes away (1800 s)")
    add_folder(parser)


def run(args: argparse.Namespace) -> None:
    """Submit, watch, print the result."""
    from pathlib import Path

    from fedimb.cli.deploy.folder import opened
    from fedimb.config.load import from_json, row_label
    from fedimb.deploy.coordinator.serve import is_deployed
    from fedimb.deploy.coordinator.submit import execute, find_plan, new_run
    from fedimb.errors import ConfigError
    from fedimb.report.panel import panels
    from fedimb.rundir.folder import RunFolder
    from fedimb.serverapp.progress import ProgressBar

    deployment = opened(args)
    if args.resume:
        folder = RunFolder.open(Path(args.resume))
        if not is_deployed(folder.path):
            raise ConfigError(f"{folder.path} is a simulation's run: resume it with fedimb run --resume")
    elif args.plan:
        folder = new_run(deployment, find_plan(deployment, args.plan), args.overrides, args.join, args.away)
    else:
        raise ConfigError("name a plan (fedimb deploy run PLAN) or a run to go on with (--resume RUN)")
    config = from_json((folder.path / "config.json").read_text())
    with ProgressBar(config.rounds) as progress:
        progress.title(row_label(config, next(iter(config.calibration))))
        result = execute(deployment, folder, progress)
    print(panels(result))
