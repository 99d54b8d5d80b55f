"""``fedimb report``: writes one HTML file on a run or a study, to read, send and print."""

import argparse
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR, add_trust
from fedimb.errors import ConfigError, FedimbError

if TYPE_CHECKING:
    from fedimb.cli.output.models import ModelsReport
    from fedimb.cli.output.runs import ReportWritten
    from fedimb.cli.verbs import Verbs
    from fedimb.study.results import StudyResults

_ABOUT = """\
Write an HTML report on a run or a study: which strategy finds more of the minority than the others, learning curves,
recall per class, confusion matrices, cost, data per client, statistics, commands and hashes. One file, readable
without network.

  fedimb report runs/default/fedavg-s0-103b96c9     a run, to report.html in its folder
  fedimb report 103b96c9                            the same by the hash in its name
  fedimb report runs/baselines                      all runs of a study
  fedimb report baselines --to result.html --open   to another file, and open it in the browser
  fedimb report 103b96c9 7f02a1de                   two runs tested on the same test rows (see `fedimb compare --help`)
  fedimb report baselines:la_post baselines:focal   two rows of a study, seed by seed and over its seeds"""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    report = verbs.add_parser("report", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    report.add_argument(
        "what", metavar="RUN|STUDY", help="a run (folder, name, or the beginning of a name) or a study's folder"
    )
    report.add_argument(
        "other", nargs="?", metavar="RUN|STUDY:ROW", help="a second model, to test both on the same test rows"
    )
    report.add_argument(
        "--to", metavar="FILE", type=Path, help="file to write (default: report.html in the run's or study's folder)"
    )
    report.add_argument("--open", action="store_true", help="open it in the browser")
    report.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")
    add_trust(report)
    report.set_defaults(handler=report_command)


def report_command(args: argparse.Namespace) -> "ModelsReport | ReportWritten":
    """``fedimb report``. Prints the file's path.

    Raises:
        ConfigError: several runs match, or the file cannot be written.
        FedimbError: no such run or study, or nothing in it has finished.
    """
    from fedimb.atomic import write_atomic
    from fedimb.cli.output.models import ModelsReport
    from fedimb.cli.output.runs import ReportWritten
    from fedimb.registry.targets import trusted

    with trusted(args.trust):
        place, render = _of_study(args) if args.other is None else _of_two_models(args)
    to = place if args.to is None else args.to.expanduser()
    if to.is_dir():
        raise ConfigError(f"--to {to} is a folder; give a file, e.g. {to / 'report.html'}")
    if not to.absolute().parent.is_dir():
        raise ConfigError(f"--to {to}: there is no folder {to.absolute().parent}; create it first")
    text = render()
    try:
        write_atomic(to.absolute(), text.encode())
    except OSError as error:
        raise ConfigError(f"{to} cannot be written ({error.strerror}); give another place with --to") from None
    if not args.json:
        print(to)
    if args.open and not webbrowser.open(to.absolute().as_uri()):
        raise FedimbError(f"no browser could be started; open {to} in one")
    if args.other is not None:
        return ModelsReport(report=str(to))
    return ReportWritten(report=str(to), source=str(place.parent))


def _of_study(args: argparse.Namespace) -> tuple[Path, Callable[[], str]]:
    from fedimb.report.document import study_page

    folder, study = find_study(args.what, args.output_dir)
    for note in _not_sealed(study):
        print(f"fedimb: {note}", file=sys.stderr)
    return folder / "report.html", lambda: study_page(study, folder)


def _of_two_models(args: argparse.Namespace) -> tuple[Path, Callable[[], str]]:
    from fedimb.cli.paired import find_pairs, page_place
    from fedimb.report.html.models import models_page

    found = find_pairs(args.what, args.other, args.output_dir)
    return page_place(found[0]), lambda: models_page(found)


def _not_sealed(study: "StudyResults") -> list[str]:
    """A line for each run folder without a seal; more than three are counted."""
    from fedimb.rundir.folder import RunFolder

    folders = dict.fromkeys(Path(str(r.folder)) for r in study.results if r.folder is not None)
    notes = [
        note for folder in folders if (folder / "config.json").is_file() and (note := RunFolder(folder).not_sealed())
    ]
    return notes if len(notes) <= 3 else [*notes[:3], f"and {len(notes) - 3} more runs are not sealed"]


def find_study(word: str, output_dir: str) -> tuple[Path, "StudyResults"]:
    """Find the folder that a word names and read its results: a study's folder by path or name, else a run.

    Raises:
        FedimbError: neither (names the nearest), or nothing has finished.
    """
    from fedimb.cli.find import find_run, nearest_runs, run_folders

    for folder in (Path(word).expanduser(), Path(output_dir).expanduser() / word):
        if word and folder.is_dir() and not (folder / "config.json").is_file():
            return folder, _study(folder)
    try:
        found = find_run(word, output_dir)
    except ConfigError:
        raise
    except FedimbError as error:
        studies = {f.parent.name for f in run_folders(output_dir)}
        names = studies | {f.name for f in run_folders(output_dir)}
        if not names:
            raise FedimbError(
                f"no run or study '{word}', and none below {output_dir}: `fedimb run` creates one; "
                "for runs in another folder give --output-dir"
            ) from error
        raise FedimbError(
            f"no run or study '{word}' below {output_dir}.{nearest_runs(word, names, output_dir)}"
        ) from None
    from fedimb.report.html.run import study_of_run

    return found, study_of_run(found)


def _study(folder: Path) -> "StudyResults":
    from fedimb.study.folders import collect

    if not any(folder.glob("*/config.json")) and not any(folder.glob("*.yaml")):
        raise FedimbError(f"{folder} holds no run folders; give a study's folder, e.g. runs/default, or a run's")
    study = collect(folder)
    if not any(r.status == "finished" for r in study.results):
        raise FedimbError(f"no run in {folder} has finished; `fedimb runs` shows their progress")
    return study
