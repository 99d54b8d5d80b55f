"""Registered data: what this site offers to studies, by tag. The files stay where they are and are never edited.

  fedimb node data add /data/heart.csv --name heart --tags heart-disease --patient-column pid target=diagnosis
  fedimb node data add /data/heart.csv --name heart --tags heart-disease --like heart.yaml
  fedimb node data list
  fedimb node data verify heart                     is every record as it was registered?
  fedimb node data prove heart 17 --to proof.json   that row 17 is among them
  fedimb node data verify-proof proof.json --root 1c8f...
  fedimb node data withdraw heart --ids ids.txt --then stop

docs/registered-data.md says what a version proves, and what a withdrawal does and does not."""

import argparse

LINE = "register data for studies, verify, prove, withdraw patients"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action's words."""
    home = argparse.ArgumentParser(add_help=False)
    home.add_argument("--home", metavar="DIR", help="the node's folder (default: $FEDIMB_NODE_HOME, else here)")
    actions = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    add = actions.add_parser("add", help="read a data set completely and register it", parents=[home])
    add.add_argument("path", metavar="PATH", help="table, .npz, folder or .zip")
    add.add_argument("words", nargs="*", metavar="key=value", help="settings of the source (fedimb data check)")
    add.add_argument("--name", required=True, help="what the site calls it; again for a new version of it")
    add.add_argument("--tags", required=True, action="append", metavar="A,B,...", help="what plans ask for")
    add.add_argument("--source", metavar="NAME", help="how to read it (default: by the file's kind)")
    add.add_argument("--like", metavar="FILE", help="read it as this data group (YAML of the coordinator) says")
    add.add_argument("--patient-column", metavar="COLUMN", help="column of patients' ids: kept whole, withdrawn by it")
    add.add_argument("--classes", metavar="A,B,...", help="the classes, in the study's order")
    add.add_argument(
        "--can-record", metavar="A,...", help="classes without a row here that this site would record if it saw one"
    )

    actions.add_parser("list", help="what is registered, and which runs use it", parents=[home])
    verify = actions.add_parser("verify", help="read every record again", parents=[home])
    verify.add_argument("name", nargs="?", metavar="NAME", help="default: all")

    prove = actions.add_parser("prove", help="that a record is in the registered version", parents=[home])
    prove.add_argument("name", metavar="NAME")
    prove.add_argument("record", metavar="RECORD", help="row number, or file as in 'a.csv row 17' or cat/p1.png")
    prove.add_argument(
        "--open", action="store_true", help="with the record itself (label and patient's id too): for who may see it"
    )
    prove.add_argument("--to", metavar="FILE", help="where to (default: the terminal)")

    check = actions.add_parser("verify-proof", help="check a proof; needs no node")
    check.add_argument("file", metavar="FILE")
    check.add_argument("--root", metavar="HEX", help="the Merkle root the site gave before")

    withdraw = actions.add_parser("withdraw", help="leave patients out from now on", parents=[home])
    withdraw.add_argument("name", metavar="NAME")
    withdraw.add_argument(
        "--ids", required=True, metavar="FILE", help="patients' ids, one per line; without a patient column, rows"
    )
    withdraw.add_argument(
        "--then",
        choices=("stop", "continue", "retrain"),
        default="stop",
        help="runs that used them: stop here (default), continue without them, or only a new run from round 0",
    )


def run(args: argparse.Namespace) -> int:
    """The chosen action."""
    from fedimb.cli import registered

    return int(getattr(registered, f"{args.what.replace('-', '_')}_data")(args) or 0)
