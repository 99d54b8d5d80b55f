"""``fedimb study register``: fixes what a study claims, and of what, before its runs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.output.studies import StudyRegistered
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Write what a study claims into <study>.registered.json, beside its file: primary score, contrasts, rows, data sets,
seeds, margins and why, with a hash of all of it, of every row's configuration and of every data set's content. Commit
the file before the runs. `fedimb compare` then says `registered`; or `exploratory`, and what was changed since, or that
there were runs already.

  fedimb study register experiments/losses/study.yaml

The study's file says what to register; six contrasts at most, Holm's correction is over them:

  registration:
    primary: macro_recall
    contrasts: [[focal, bar], [focal, fedavg]]      # bar: the best free row of each setting
    margin_reason: one percentage point is the least that a clinic would retrain for"""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    verb = verbs.add_parser("study", description="What a study fixes before its runs.")
    actions = verb.add_subparsers(dest="action", metavar="ACTION", required=True)
    registering = actions.add_parser(
        "register",
        help="fix contrasts, rows, data sets and margins before the runs",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    registering.add_argument("study", metavar="STUDY", help="a study's YAML file")
    registering.set_defaults(handler=register_command)


def register_command(args: argparse.Namespace) -> "StudyRegistered":
    """``fedimb study register``. Raises ConfigError where the study cannot be registered."""
    from fedimb.cli.output.studies import StudyRegistered
    from fedimb.study.bars import check_bar
    from fedimb.study.design import read_study
    from fedimb.study.registration import register as write_registration
    from fedimb.study.tuning import check_tuning

    path = Path(args.study).expanduser()
    study = read_study(path)
    check_bar(study, ())
    check_tuning(study, ())
    file, found = write_registration(study, path)
    assert study.registration is not None
    pairs = [f"{first} - {second}" for first, second in study.registration.contrasts]
    print(f"{study.name}: {', '.join(pairs)}, in {study.registration.primary} over {len(study.data_sets)} data sets")
    print(f"{found.sentence} in {file}; commit it before the runs")
    return StudyRegistered(
        study=study.name,
        file=str(file),
        sha256=found.sha,
        time=found.time,
        primary=study.registration.primary,
        contrasts=[list(pair) for pair in study.registration.contrasts],
        rows=study.labels,
        data_sets=list(study.data_sets),
    )
