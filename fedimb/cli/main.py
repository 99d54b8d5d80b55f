"""``fedimb <verb>``: parse, dispatch, turn fedimb's errors into one line and an exit code."""

import argparse
import logging
import sys
from collections.abc import Sequence

from fedimb import __version__
from fedimb.errors import FedimbError

_RUN = """\
Run one configuration. Every setting is a key=value word; parts are chosen by name:

  fedimb run                                        FedAvg + cross-entropy on long-tailed digits, 10 Ray clients
  fedimb run loss=balanced_softmax seed=3           another loss, another seed
  fedimb run aggregator=fedprox aggregator.proximal_mu=0.1 data.imbalance_factor=100
  fedimb run calibration=[none,la_post,tau]         score three calibrations on one checkpoint
  fedimb run engine=inline rounds=5                 everything in this process, for a debugger
  fedimb run --dry-run                              what it would cost: steps, bytes, minutes
  fedimb run --resume runs/default/fedavg-s0-...    go on after a crash

`fedimb list` names the parts, `fedimb run --show` prints the whole configuration."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedimb",
        description="Federated learning for the hard case: the class that matters is rare, no site has enough of it.",
    )
    parser.add_argument("--version", action="version", version=f"fedimb {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    run = verbs.add_parser(
        "run", help="run one configuration", description=_RUN, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    run.add_argument("overrides", nargs="*", metavar="key=value", help="settings, e.g. rounds=20 loss=ce")
    run.add_argument("--config-dir", action="append", default=[], metavar="DIR", help="folder with groups of yours")
    mode = run.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="print what the run would cost, and stop")
    mode.add_argument("--show", action="store_true", help="print the resolved configuration, and stop")
    mode.add_argument("--resume", metavar="RUN", help="go on with this run folder")

    demo = verbs.add_parser("demo", help="compare five strategies on long-tailed digits (under five minutes)")
    demo.add_argument("overrides", nargs="*", metavar="key=value", help="settings applied to every row, e.g. rounds=10")
    demo.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds per row (default 3)")

    listing = verbs.add_parser("list", help="list strategies, aggregators, losses, ... or the allowed combinations")
    listing.add_argument("kind", nargs="?", help="one kind, e.g. losses; or 'combinations'")

    track = verbs.add_parser("track", help="MLflow: send a run folder (again), or print the link to the charts")
    actions = track.add_subparsers(dest="action", metavar="ACTION", required=True)
    sync = actions.add_parser("sync", help="send what MLflow does not have yet; safe to repeat")
    sync.add_argument("run", metavar="RUN", help="run folder")

    show = verbs.add_parser("show", help="print a finished run: headline scores and recall per class")
    show.add_argument("run", metavar="RUN", help="run folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``fedimb``. Returns the exit code: 0, 1 failed, 2 bad input, 75 waiting, 130 Ctrl-C."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    from fedimb.cli import commands

    try:
        return int(getattr(commands, args.verb)(args) or 0)
    except FedimbError as error:
        print(f"fedimb: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fedimb: interrupted; a started run can be resumed with fedimb run --resume RUN", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # the reader (head, less) has seen enough
