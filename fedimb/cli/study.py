"""Shared by sweep, tune and compare: options, workers, and the output at the end."""

import argparse
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.errors import ConfigError, RunSuspect
from fedimb.text import WIDTH

if TYPE_CHECKING:  # `add_options` is for the help too, which imports nothing heavy
    from fedimb.cli.output.studies import StudyFinished
    from fedimb.study.execute import Workers
    from fedimb.study.results import StudyResults


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--workers``, ``--isolate``, ``--rerun``, ``--keep-stale``, ``--dry-run``, ``--no-report``."""
    parser.add_argument(
        "--workers", type=int, metavar="N", help="runs at a time (default: one per core); 0: all in this process"
    )
    parser.add_argument("--isolate", action="store_true", help="use a new process for every run")
    parser.add_argument(
        "--rerun", nargs="?", const="", metavar="ROW", help="run finished runs again: of one row, or (given last) all"
    )
    parser.add_argument(
        "--keep-stale",
        action="store_true",
        help="use finished runs whose code, data or versions have changed, marked (stale) in every table",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be run, and stop")
    parser.add_argument("--no-report", action="store_true", help="do not write the HTML report")


def workers(args: argparse.Namespace, folder: Path) -> "Workers":
    """Worker settings from the command line.

    Raises:
        ConfigError: ``--workers`` below 0.
    """
    if args.workers is not None and args.workers < 0:
        raise ConfigError(f"--workers {args.workers}: give 1 or more, or 0 to run everything in this process")
    from fedimb.study.execute import workers_of
    from fedimb.study.reuse import Reuse

    return workers_of(args.workers, folder, args.isolate, Reuse(args.rerun, args.keep_stale))


def default_workers(folder: Path) -> "Workers":
    """One run per core."""
    from fedimb.study.execute import workers_of

    return workers_of(None, folder)


def command_line(verb: str, words: Sequence[str]) -> str:
    """The command as typed, for the record."""
    return " ".join(["fedimb", verb, *map(shlex.quote, words)])


def conclude(
    args: argparse.Namespace, results: "StudyResults", folder: Path, failures: Sequence[str], margin: float = 0.02
) -> "StudyFinished":
    """Print the tables, write the statistics and the report, and list failures."""
    from fedimb.cli.output.studies import StudyFinished
    from fedimb.report.bar_text import bar_csv, bar_table, contrasts_csv, sets_csv, sets_table
    from fedimb.report.critical_difference import draw_ranks
    from fedimb.report.gains_text import gains_csv, gains_of, gains_table
    from fedimb.report.meaning import bar_sentence, study_sentence
    from fedimb.report.statistics_text import statistics_csv, statistics_table, wrapped
    from fedimb.report.study_tables import study_table
    from fedimb.study.over_sets import over_sets
    from fedimb.study.results import write_csv
    from fedimb.study.statistics import statistics

    meaning, found, over = "", None, None
    written = [write_csv(results.results, folder / "rows.csv")]
    if any(result.status == "finished" for result in results.results):
        found = statistics(results, margin=margin)
        gains = gains_of(results)
        over = over_sets(results, found)
        parts = [study_table(results), statistics_table(found), gains_table(gains), bar_table(results, found)]
        parts += [sets_table(over)] if over is not None else []
        parts += ["\n".join(wrapped(results.registered.sentence))] if results.registered is not None else []
        text = "\n\n".join(part for part in parts if part)
        sentences = f"{study_sentence(found)} {bar_sentence(results, found, over)}".strip()
        meaning = textwrap.fill(sentences, WIDTH)
        if not args.json:
            print(text)
        (folder / "table.txt").write_text(f"{text}\n\n{meaning}\n")
        written += [folder / "table.txt", statistics_csv(found, folder / "statistics.csv")]
        if gains:
            written.append(gains_csv(gains, folder / "gains.csv"))
        if results.bars:
            written.append(bar_csv(found, folder / "against_bar.csv"))
        if over is not None:
            word = "exploratory" if results.registered is None else results.registered.word
            written.append(sets_csv(over, folder / "data_sets.csv"))
            written += [contrasts_csv(over, word, folder / "contrasts.csv")] if over.contrasts else []
            written += draw_ranks(over, folder)
        if not args.no_report:
            from fedimb.report.html.page import page

            (folder / "report.html").write_text(page(results, found, over))
            written.append(folder / "report.html")
        if args.plot:
            from fedimb.report.terminal import draw_study

            draw_study(results)
    found_charts = charts(results)
    if not args.json:
        print("\n" + "\n".join(f"wrote    {path}" for path in written))
        if found_charts:
            print(f"charts   {found_charts[0]}\n         {found_charts[1]}")
        if meaning:
            print(f"\n{meaning}")
    exit_code = report_failures(failures) or report_suspects(results)
    shown = found_charts[1] if found_charts else None
    return StudyFinished.from_results(
        results, found, over, folder, " ".join(meaning.split()), written, failures, shown, exit_code
    )


def report_suspects(results: "StudyResults") -> int:
    """List the suspect runs whose settings refuse them on standard error. Returns the exit code: 3 if there is one."""
    refused = [result for result in results.results if result.suspect and result.refused]
    for result in refused:
        where = f"{result.label}, {result.setting}, seed {result.seed}"
        print(f"suspect: {where}: {result.suspect} ({result.folder})", file=sys.stderr)
    return RunSuspect.exit_code if refused else 0


def report_failures(failures: Sequence[str]) -> int:
    """List the runs that did not finish on standard error. Returns the exit code: 1 if one failed."""
    if failures:
        print(f"\n{len(failures)} runs did not finish:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in failures[:20]), file=sys.stderr)
        if len(failures) > 20:
            print(f"  and {len(failures) - 20} more: see rows.csv", file=sys.stderr)
    return 1 if any(line.startswith("failed") for line in failures) else 0


def charts(results: "StudyResults") -> tuple[str, str] | None:
    """How to open the study's charts in MLflow, or None if its runs are not tracked."""
    from fedimb.rundir.folder import RunFolder
    from fedimb.rundir.stored import read_config
    from fedimb.study.execute import store_of
    from fedimb.tracking.mlflow import charts_link

    folder = next((r.folder for r in results.results if r.folder is not None), None)
    if folder is None:
        return None
    config = read_config(RunFolder.open(folder))
    return None if config.tracking["name"] == "none" else charts_link(*store_of(config))
