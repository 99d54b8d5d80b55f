"""``fedimb doctor``: checks whether this installation and machine can run fedimb, and what to do if not."""

import argparse
from typing import TYPE_CHECKING

from fedimb.cli.places import OUTPUT_DIR

if TYPE_CHECKING:
    from fedimb.cli.output.parts import Checks
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Check the installation and the machine, without starting anything. Each line says ok, warn or fail, with a remedy.
The exit code is 1 if a line says fail.

  fedimb doctor
  fedimb doctor --output-dir results     look at the MLflow store of another folder"""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    doctor = verbs.add_parser(
        "doctor",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")
    doctor.set_defaults(handler=doctor_command)


def doctor_command(args: argparse.Namespace) -> "Checks":
    """``fedimb doctor``. Returns 1 when a check failed."""
    from fedimb.cli.output.parts import CheckLine, Checks
    from fedimb.deploy.checks import all_checks

    found = []
    for check in all_checks(args.output_dir):
        found.append(CheckLine.of(check))
        remedy = f": {check.remedy}" if check.remedy else ""
        if not args.json:
            print(f"{check.level:<4}  {check.name:<16}  {check.found}{remedy}", flush=True)
    return Checks(checks=found, exit_code=int(any(check.level == "fail" for check in found)))
