"""``fedimb report``: writes one HTML file on a run or a study, to read, send and print."""

import argparse
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR
from fedimb.errors import ConfigError, FedimbError

if TYPE_CHECKING:
    from fedimb.cli.verbs import Verbs
    from fedimb.study.results import StudyResults

_ABOUT = """\
Write an HTML report on a run or a study: which strategy finds most of the minority classes, learning curves, recall per
class, confusion matrices, cost, data per client, statistics, commands and hashes. One file, readable without network.

  fedimb report runs/default/fedavg-s0-103b96c9     a run, to report.html in its folder
  fedimb report 103b96c9                            the same by the hash in its name
  fedimb report runs/baselines                      all runs of a study
  fedimb report baselines --to result.html --open   to another file, and open it in the browser"""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    report = verbs.add_parser("report", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    report.add_argument(
        "what", metavar="RUN|STUDY", help="a run (folder, name, or the beginning of a name) or a study's folder"
    )
    report.add_argument(
        "--to", metavar="FILE", type=Path, help="file to write (default: report.html in the run's or study's folder)"
    )
    report.add_argument("--open", action="store_true", help="open it in the browser")
    report.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")
    report.set_defaults(handler=report_command)


def report_command(args: argparse.Namespace) -> int:
    """``fedimb report``. Prints the file's path.

    Raises:
        ConfigError: several runs match, or the file cannot be written.
        FedimbError: no such run or study, or nothing in it has finished.
    """
    from fedimb.records import write_atomic
    from fedimb.report.html.page import page

    folder, study = find_study(args.what, args.output_dir)
    to = folder / "report.html" if args.to is None else args.to.expanduser()
    if to.is_dir():
        raise ConfigError(f"--to {to} is a folder; give a file, e.g. {to / 'report.html'}")
    if not to.absolute().parent.is_dir():
        raise ConfigError(f"--to {to}: there is no folder {to.absolute().parent}; create it first")
    text = page(study)
    try:
        write_atomic(to.absolute(), text.encode())
    except OSError as error:
        raise ConfigError(f"{to} cannot be written ({error.strerror}); give another place with --to") from None
    print(to)
    if args.open and not webbrowser.open(to.absolute().as_uri()):
        raise FedimbError(f"no browser could be started; open {to} in one")
    return 0


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
