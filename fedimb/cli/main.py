"""``fedimb <verb>``: parse, dispatch, turn fedimb's errors into one line and an exit code."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from fedimb import __version__, process_env
from fedimb.errors import FedimbError

VERBS = {
    "run": ("fedimb.cli.run", "run one configuration"),
    "demo": ("fedimb.cli.demo", "compare strategies on long-tailed digits, then what a few labels buy"),
    "show": ("fedimb.cli.show", "print a run: headline scores and recall per class"),
    "track": ("fedimb.cli.show:register_track", "MLflow: send a run folder (again)"),
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
"""Every verb: the module with its ``register(subparsers)`` (or the function named), and its line in the help."""


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser, complete for the verb ``chosen`` only: importing every verb's file would slow each command down."""
    parser = argparse.ArgumentParser(
        prog="fedimb",
        description="Federated learning for the hard case: the class that matters is rare, no site has enough of it.",
    )
    parser.add_argument("--version", action="version", version=f"fedimb {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (module, line) in VERBS.items():
        if verb == chosen:
            module, _, function = module.partition(":")
            getattr(importlib.import_module(module), function or "register")(verbs)
        else:
            verbs.add_parser(verb, help=line)
    return parser


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
    process_env.set_defaults()  # before anything is imported that reads it
    words = sys.argv[1:] if argv is None else list(argv)
    args = _parse(words)
    import logging

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        return int(args.handler(args) or 0)
    except FedimbError as error:
        print(f"fedimb: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fedimb: interrupted; a started run can be resumed with fedimb run --resume RUN", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # the reader (head, less) has seen enough
