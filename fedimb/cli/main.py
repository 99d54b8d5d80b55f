"""``fedimb <verb>``: parse, dispatch, turn fedimb's errors into one line and an exit code."""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence

from fedimb import __version__, process_env, process_state
from fedimb.cli import json_mode
from fedimb.cli.verbs import Parser
from fedimb.errors import FedimbError, storage_reason, traceback_of
from fedimb.supported import refusal

VERBS = {
    "run": ("fedimb.cli.run", "run one configuration"),
    "demo": ("fedimb.cli.demo", "compare strategies on long-tailed digits, then what a few labels buy"),
    "show": ("fedimb.cli.show", "print a run's scores, and recall per class"),
    "track": ("fedimb.cli.show:register_track", "send a run to MLflow, e.g. after an outage"),
    "list": ("fedimb.cli.listing", "list strategies, aggregators, losses, ..., or which of them can be combined"),
    "data": ("fedimb.cli.data", "import or check your own data, or show what each client would hold"),
    "runs": ("fedimb.cli.runs", "list, delete or clean up run folders"),
    "predict": ("fedimb.cli.predict", "score data with a finished run's model"),
    "explain": ("fedimb.cli.explain", "say why a finished run's model says what it says"),
    "register": ("fedimb.cli.register", "put a finished run's model into MLflow's model registry"),
    "report": ("fedimb.cli.report", "write an HTML report on a run or a study"),
    "new": ("fedimb.cli.new", "create a package with your own loss, query rule, strategy, ..."),
    "sweep": ("fedimb.cli.sweep", "run every combination of given values, and compare them"),
    "tune": ("fedimb.cli.tune", "tune settings on seeds that comparisons do not use"),
    "compare": ("fedimb.cli.compare", "run a study (a YAML file) that compares strategies"),
    "study": ("fedimb.cli.study_register", "fix what a study claims, before its runs"),
    "worklist": ("fedimb.cli.worklist", "active learning with people: progress of labelling, check of returned files"),
    "node": ("fedimb.cli.node", "at a hospital: key, data, approvals, and the process that takes part in runs"),
    "deploy": ("fedimb.cli.deploy", "at the coordinator of hospitals: certificates, sites, study plans, runs"),
    "region": ("fedimb.cli.region", "at a region of a larger study: answer its coordinator with the sum of its sites"),
    "outbox": ("fedimb.cli.outbox", "review synthetic samples before they leave a site"),
    "ui": ("fedimb.cli.ui", "open the charts in MLflow"),
    "completion": ("fedimb.cli.completion", "print the script that completes fedimb's words in bash, zsh or fish"),
    "doctor": ("fedimb.cli.doctor", "check the installation and the machine"),
    "bench": ("fedimb.cli.bench", "benchmark against plain PyTorch and Flower's own simulation"),
}
"""Every verb: the module with its ``register(subparsers)`` (or the named function), and its line in the help."""

_REPEATED = ("overrides", "words", "settings", "cases", "runs", "data")  # arguments that take any number of words
_FIRST_STEPS = ("demo", "run", "compare", "list", "data", "doctor")


def _short_help() -> str:
    lines = [f"  fedimb {verb:9}{VERBS[verb][1]}" for verb in _FIRST_STEPS]
    return "\n".join(
        [
            "fedimb: federated learning for long-tailed data. Give a verb, such as",
            "",
            *lines,
            "",
            f"fedimb --help lists all {len(VERBS)} verbs, fedimb VERB --help explains one with examples.",
        ]
    )


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser, complete for the verb ``chosen`` only: importing every verb's file would slow each command down."""
    parser = Parser(
        prog="fedimb",
        description="Federated learning for long-tailed data, where the classes that matter are rare at every site.",
    )
    parser.add_argument("--version", action="version", version=f"fedimb {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (module, line) in VERBS.items():
        if verb == chosen:
            module, _, function = module.partition(":")
            getattr(importlib.import_module(module), function or "register")(verbs)
            json_mode.add_json(verbs.choices[verb], verb)
        else:
            verbs.add_parser(verb, help=line)
    return parser


def every_leaf() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """All actions of all verbs with their parsers, by what is typed (``runs list``). Imports every verb's module."""
    for verb in VERBS:
        (verbs,) = (a for a in _parser(verb)._actions if isinstance(a, argparse._SubParsersAction))
        yield from json_mode.leaves(verbs.choices[verb], verb)


def _parse(words: list[str]) -> argparse.Namespace:
    """Parse the arguments; settings may come before and after options (argparse alone stops after the first option)."""
    verb = next((word for word in words if not word.startswith("-")), None)
    parser = _parser(verb)
    if verb is not None and verb not in VERBS and "=" in verb:
        parser.exit(2, f"fedimb: '{verb}' is a setting, and settings follow a verb: fedimb run {verb}\n")
    args, rest = parser.parse_known_args(words)
    taken = next((name for name in _REPEATED if isinstance(getattr(args, name, None), list)), None)
    if rest and (taken is None or any(word.startswith("-") for word in rest)):
        parser.exit(2, f"fedimb {verb}: unrecognized arguments: {' '.join(rest)}. See fedimb {verb} --help\n")
    if taken is not None:
        getattr(args, taken).extend(rest)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``fedimb``. Exit codes: 0, 1 failed, 2 bad input, 75 waiting for a person, 130 Ctrl-C."""
    process_env.set_defaults()  # before importing anything that reads the environment
    if argv is None:  # this process is the command, and not a program that calls it
        process_state.collect_seldom()
    words = sys.argv[1:] if argv is None else list(argv)
    if not words:
        print(_short_help(), file=sys.stderr)
        return 2
    with json_mode.answering(words) as answer:
        if not {"--help", "-h", "--version"} & set(words) and (reason := refusal()) is not None:
            print(f"fedimb: {reason}", file=sys.stderr)
            return answer.failure(reason, "UnsupportedSystem", 1)
        args = answer.parse(_parse, words)
        import logging

        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        try:
            return answer.result(args.handler(args))
        except FedimbError as error:
            if cause := traceback_of(error):
                print(cause, file=sys.stderr)  # above, so that the line that says what to do is the last one
            print(f"fedimb: {error}", file=sys.stderr)
            return answer.failure(str(error), type(error).__name__, error.exit_code)
        except KeyboardInterrupt as interrupt:
            # whoever was interrupted last knows how to go on: the study, not its run
            notes = getattr(interrupt, "__notes__", ["a started run can be resumed with fedimb run --resume RUN"])
            message = f"interrupted; {notes[-1]}"
            print(f"fedimb: {message}", file=sys.stderr)
            return answer.failure(message, "Interrupted", 130)
        except BrokenPipeError:
            return 0  # the reader (head, less) has seen enough
        except OSError as error:
            if (reason := storage_reason(error)) is None:
                raise
            print(f"fedimb: {reason}", file=sys.stderr)
            return answer.failure(reason, type(error).__name__, 1)
