"""What run, demo, show and track do; other verbs have a file each. Imports are inside: help answers at once."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.facts import RunFacts
    from fedimb.rundir.result import RunResult


def run(args: argparse.Namespace) -> int:
    """``fedimb run``."""
    if args.resume:
        from fedimb.cli.find import find_run
        from fedimb.errors import ConfigError

        if args.overrides:
            raise ConfigError("--resume takes no settings: a run goes on with the configuration it was started with")
        folder = find_run(args.resume)
        from fedimb.serverapp.launch import resume

        _print_result(resume(folder))
        return 0
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate

    config = validate(compose(args.overrides, [Path(d) for d in args.config_dir]))
    if args.show:
        import json

        print(json.dumps(config.model_dump(), indent=2))
        return 0
    if args.dry_run:
        from fedimb.serverapp.estimate import estimate

        print(estimate(config).table())
        return 0
    from fedimb.serverapp.launch import launch

    _print_result(launch(config))
    return 0


def demo(args: argparse.Namespace) -> int:
    """``fedimb demo``."""
    from fedimb.cli.demo import demo as run_demo

    return run_demo(args.overrides, args.seeds)


def show(args: argparse.Namespace) -> int:
    """``fedimb show``: a finished run's panel, or how far an unfinished one is and how to go on."""
    from fedimb.cli.facts import read_facts
    from fedimb.cli.find import find_run

    facts = read_facts(find_run(args.run, args.output_dir))
    if facts.status != "finished":
        print("\n".join(_unfinished(facts)))
        return 0
    from fedimb.rundir.result import RunResult

    _print_result(RunResult.read(facts.path))
    return 0


def _unfinished(facts: "RunFacts") -> list[str]:
    from fedimb.cli.facts import age, latest_scores, shown_age

    lines = [
        f"{', '.join(facts.labels) or facts.path.name}, seed {facts.seed}: {facts.status}",
        f"rounds      {facts.done} of {facts.total}, last sign of life {shown_age(age(facts))} ago",
    ]
    if facts.reason:
        lines.append(f"reason      {facts.reason}")
    scores = latest_scores(facts.path)
    if "macro_recall" in scores:
        lines.append(
            f"so far      macro recall {scores['macro_recall']:.3f}, minority recall {scores['minority_recall']:.3f}"
            f" in round {facts.done}"
        )
    going = "it is being worked on" if facts.status == "running" else f"fedimb run --resume {facts.path}"
    return [*lines, f"run folder  {facts.path}", f"go on       {going}"]


def track(args: argparse.Namespace) -> int:
    """``fedimb track sync``."""
    from fedimb.cli.find import find_run

    folder = find_run(args.run, args.output_dir)
    from fedimb.tracking.mlflow import charts_link, sync

    report = sync(folder)
    print(f"sent {report.sent_points} points; {len(report.runs)} MLflow runs: {', '.join(report.runs)}")
    command, url = charts_link(report.uri, report.experiment)
    print(f"{command}\n{url}")
    return 0


def _print_result(result: "RunResult") -> None:
    from fedimb.report.panel import panels

    print(panels(result))
