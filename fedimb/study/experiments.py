"""Shared by the scripts in ``experiments/``: where runs and tables go, running them, and publishing the tables."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from fedimb import process_env
from fedimb.rundir.result import RunResult
from fedimb.schema import RunConfig
from fedimb.study.collect import read_run
from fedimb.study.design import Costs
from fedimb.study.execute import Workers, results_of
from fedimb.study.results import Result, write_csv
from fedimb.study.work import folder_of


def parser_of(script: str | Path, about: str | None) -> argparse.ArgumentParser:
    """A parser with ``--output`` (default ``runs/<the script's folder>``) and ``--to`` (the script's folder).

    Args:
        script: ``__file__`` of the experiment.
        about: its ``__doc__``.
    """
    here = Path(script).absolute().parent
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs", here.name), help="run folders")
    parser.add_argument("--to", type=Path, default=here, help="CSVs and table")
    return parser


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, turn on warnings, and create the folder ``--to``."""
    process_env.set_defaults()
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    args.to.mkdir(parents=True, exist_ok=True)
    return args


def run_whole(configs: Sequence[RunConfig]) -> list[RunResult]:
    """Do all runs, one per core at a time; raises RunFailed unless all finish."""
    folder = folder_of(configs[0])
    return results_of(configs, Workers(os.cpu_count() or 1, False, folder / "logs"), folder.name)


def run_to_csv(configs: Sequence[RunConfig], path: Path) -> list[Result]:
    """`run_whole`, then write a CSV named after the setting, with a line per row and seed."""
    results = [row for run in run_whole(configs) for row in read_run(run.folder, path.stem, Costs())]
    write_csv(results, path)
    return results


def publish(text: str, to: Path) -> None:
    """Write ``table.txt`` into ``to`` and print it."""
    text = text.rstrip("\n")
    (to / "table.txt").write_text(text + "\n")
    print(text)
