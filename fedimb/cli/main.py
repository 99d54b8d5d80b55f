"""``fedimb <verb>``: parse, dispatch, turn fedimb's errors into one line and an exit code."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from fedimb import __version__
from fedimb.cli.places import OUTPUT_DIR
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

_SHOW = """\
Print a run: headline scores with intervals, recall per class from head to tail, where the model is.
An unfinished run says how far it is and how to go on.

  fedimb show runs/default/fedavg-s0-103b96c9       a run folder
  fedimb show 103b96c9                              the same by its hash, when runs/ holds one run with it
  fedimb show fedavg-s0                             or by the beginning of its name, or a run id of MLflow"""


VERBS = {
    "list": ("fedimb.cli.listing", "list strategies, aggregators, losses, ... or the allowed combinations"),
    "data": ("fedimb.cli.data", "describe what clients would hold, or check a source of yours"),
    "runs": ("fedimb.cli.runs", "list, delete or clean up run folders"),
    "predict": ("fedimb.cli.predict", "score data with a finished run's model"),
    "report": ("fedimb.cli.report", "write one HTML file about a run or a study"),
    "new": ("fedimb.cli.new", "write a part of your own: a loss, a query rule, a method, ... as a package that runs"),
    "sweep": ("fedimb.cli.sweep", "run every combination of some values, and compare them"),
    "tune": ("fedimb.cli.tune", "choose settings on seeds that no comparison uses"),
    "compare": ("fedimb.cli.compare", "compare strategies as a study's YAML file says"),
    "worklist": ("fedimb.cli.worklist", "what people were asked to label, and mistakes in what they sent back"),
    "node": ("fedimb.cli.node", "a hospital's node: key, data, approvals, and the process that takes part"),
    "deploy": ("fedimb.cli.deploy", "the coordinator's side of hospital nodes: certificates, sites, plans, runs"),
    "outbox": ("fedimb.cli.outbox", "synthetic samples that wait for a person's word before they leave a site"),
    "ui": ("fedimb.cli.ui", "open MLflow's charts"),
    "doctor": ("fedimb.cli.doctor", "check the installation and the machine"),
    "bench": ("fedimb.cli.bench", "measure what the platform costs, against the bare work and stock Flower"),
}
"""Verbs with a file of their own: where its ``register(subparsers)`` is, and the line `fedimb --help` prints."""


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser, complete for the verb ``chosen`` only: importing every verb's file would slow each command down."""
    parser = argparse.ArgumentParser(
        prog="fedimb",
        description="Federated learning for the hard case: the class that matters is rare, no site has enough of it.",
    )
    parser.add_argument("--version", action="version", version=f"fedimb {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _register_running(verbs)
    _register_looking(verbs)
    for verb, (module, line) in VERBS.items():
        if verb == chosen:
            importlib.import_module(module).register(verbs)
        else:
            verbs.add_parser(verb, help=line)
    return parser


def _register_running(verbs: Any) -> None:
    run = verbs.add_parser(
        "run", help="run one configuration", description=_RUN, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    run.add_argument("overrides", nargs="*", metavar="key=value", help="settings, e.g. rounds=20 loss=ce")
    run.add_argument("--config-dir", action="append", default=[], metavar="DIR", help="folder with groups of yours")
    mode = run.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="print what the run would cost, and stop")
    mode.add_argument("--show", action="store_true", help="print the resolved configuration, and stop")
    mode.add_argument("--resume", metavar="RUN", help="go on with this run")

    demo = verbs.add_parser("demo", help="compare strategies on long-tailed digits, then what a few labels buy")
    demo.add_argument("overrides", nargs="*", metavar="key=value", help="settings applied to every row, e.g. rounds=10")
    demo.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds per row (default 3)")


def _register_looking(verbs: Any) -> None:
    show = verbs.add_parser(
        "show",
        help="print a run: headline scores and recall per class",
        description=_SHOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument("run", metavar="RUN", help="folder, name or unique beginning")
    show.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")

    track = verbs.add_parser("track", help="MLflow: send a run folder (again)")
    actions = track.add_subparsers(dest="action", metavar="ACTION", required=True)
    sync = actions.add_parser("sync", help="send what MLflow does not have yet; safe to repeat")
    sync.add_argument("run", metavar="RUN", help="folder, name or unique beginning")
    sync.add_argument("--output-dir", default=OUTPUT_DIR, metavar="DIR", help=f"where runs are ({OUTPUT_DIR})")


def _parse(words: list[str]) -> argparse.Namespace:
    """Parsed words; settings may stand before and after options (argparse gives up after the first option)."""
    parser = _parser(next((word for word in words if not word.startswith("-")), None))
    args, rest = parser.parse_known_args(words)
    taken = next((name for name in ("overrides", "words") if isinstance(getattr(args, name, None), list)), None)
    if rest and (taken is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if taken is not None:
        getattr(args, taken).extend(rest)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``fedimb``. Returns the exit code: 0, 1 failed, 2 bad input, 75 waiting, 130 Ctrl-C."""
    words = sys.argv[1:] if argv is None else list(argv)
    args = _parse(words)
    import logging

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    from fedimb.cli import commands

    handler = getattr(args, "handler", None) or getattr(commands, args.verb)
    try:
        return int(handler(args) or 0)
    except FedimbError as error:
        print(f"fedimb: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fedimb: interrupted; a started run can be resumed with fedimb run --resume RUN", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # the reader (head, less) has seen enough
