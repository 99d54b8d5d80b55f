"""What each verb does. Imports are inside: ``fedimb --help`` must answer at once."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.run.result import RunResult


def run(args: argparse.Namespace) -> int:
    """``fedimb run``."""
    if args.resume:
        from fedimb.run.launch import resume

        if args.overrides:
            from fedimb.errors import ConfigError

            raise ConfigError("--resume takes no settings: a run goes on with the configuration it was started with")
        _print_result(resume(Path(args.resume)))
        return 0
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate

    config = validate(compose(args.overrides, [Path(d) for d in args.config_dir]))
    if args.show:
        import json

        print(json.dumps(config.model_dump(), indent=2))
        return 0
    if args.dry_run:
        from fedimb.run.estimate import estimate

        print(estimate(config).table())
        return 0
    from fedimb.run.launch import launch

    _print_result(launch(config))
    return 0


def demo(args: argparse.Namespace) -> int:
    """``fedimb demo``."""
    from fedimb.cli.demo import demo as run_demo

    return run_demo(args.overrides, args.seeds)


def show(args: argparse.Namespace) -> int:
    """``fedimb show``."""
    from fedimb.run.result import RunResult

    _print_result(RunResult.read(Path(args.run)))
    return 0


def track(args: argparse.Namespace) -> int:
    """``fedimb track sync``."""
    from fedimb.tracking.mlflow import charts_link, sync

    report = sync(Path(args.run))
    print(f"sent {report.sent_points} points; {len(report.runs)} MLflow runs: {', '.join(report.runs)}")
    command, url = charts_link(report.uri, report.experiment)
    print(f"{command}\n{url}")
    return 0


_PLURALS = {
    "strategies": "strategy",
    "aggregators": "aggregator",
    "losses": "loss",
    "samplers": "sampler",
    "calibrations": "calibration",
    "terms": "term",
    "models": "model",
    "sources": "source",
    "partitions": "partition",
}


def list(args: argparse.Namespace) -> int:
    """``fedimb list [kind]``."""
    import inspect

    from fedimb import registry
    from fedimb.errors import ConfigError, nearest

    if args.kind == "combinations":
        from fedimb.config.combinations import render_matrix

        print(render_matrix())
        return 0
    kind = _PLURALS.get(args.kind, args.kind)
    if kind is not None and kind not in _PLURALS.values():
        raise ConfigError(f"no kind '{args.kind}'.{nearest(args.kind, [*_PLURALS, 'combinations'])}")
    for plural, each in _PLURALS.items():
        if kind not in (None, each):
            continue
        print(f"{plural}:")
        for name in registry.names(each):
            doc = inspect.getdoc(registry.get(each, name).factory) or ""
            module = inspect.getmodule(registry.get(each, name).factory)
            first = doc.splitlines()[0] if doc and not doc.startswith("Args:") else ""
            about = first or (inspect.getdoc(module) or "").splitlines()[0]
            print(f"  {name:18} {about}")
    return 0


def _print_result(result: "RunResult") -> None:
    from fedimb.cli.panel import panels

    print(panels(result))
