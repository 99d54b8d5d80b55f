"""``--json``: standard output holds one JSON object and nothing else, also if the command fails.

Every action of every verb gets the option here, except those of `SILENT`. While such a command works, whatever it, its
libraries or its child processes print goes to standard error.
"""

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.output.base import Output

SILENT = {
    "ui": "serves MLflow's pages until Ctrl-C",
    "completion": "prints a script for a shell",
    "node run": "runs until it is asked to stop; its state is in fedimb node status --json",
    "deploy up": "runs until Ctrl-C; its state is in fedimb deploy status --json",
    "region run": "runs until it is asked to stop; what the root was sent is in its node's audit log",
}
"""Actions that end without a result to print, and why."""


def leaves(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parsers below ``parser`` that run something, by what is typed: ``("runs list", ...)``."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield path, parser
    for action in nested:
        for name, child in action.choices.items():
            yield from leaves(child, f"{path} {name}")


def add_json(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add ``--json`` to every action of a verb's parser, and let the arguments know what was typed (``command``)."""
    for path, leaf in leaves(parser, verb):
        leaf.set_defaults(command=path, json=False)
        if path not in SILENT:
            leaf.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")


class Answer:
    """How a command answers: text that its handler has printed, and an exit code."""

    def parse(self, parse: Callable[[list[str]], argparse.Namespace], words: list[str]) -> argparse.Namespace:
        """The parsed arguments; SystemExit if they cannot be read, or for ``--help``."""
        return parse(words)

    def result(self, outcome: "Output | int | None") -> int:
        """The exit code of what the handler returned."""
        return outcome if isinstance(outcome, int) else 0 if outcome is None else outcome.exit_code

    def failure(self, message: str, kind: str, exit_code: int) -> int:
        """The exit code of a command that failed; the message is printed already."""
        return exit_code


class JsonAnswer(Answer):
    """Answers with one JSON object.

    Args:
        write: writes to the real standard output.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._done = False
        self._command = ""

    def parse(self, parse: Callable[[list[str]], argparse.Namespace], words: list[str]) -> argparse.Namespace:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                args = parse(words)
        except SystemExit as stop:  # argparse has explained what is wrong
            text = said.getvalue()
            print(text, end="", file=sys.stderr)
            self._command = next((word for word in words if not word.startswith("-")), "")
            last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
            self.failure(re.sub(r"^fedimb[\w -]*: (error: )?", "", last.strip()), "Usage", int(stop.code or 0))
            raise
        self._command = args.command
        return args

    def result(self, outcome: "Output | int | None") -> int:
        from fedimb.cli.output.base import Output

        if not isinstance(outcome, Output):
            raise TypeError(f"fedimb {self._command} returned {outcome!r}; return an Output (fedimb.cli.output)")
        return self._print(outcome)

    def failure(self, message: str, kind: str, exit_code: int) -> int:
        from fedimb.cli.output.base import Failure

        return self._print(Failure(error=message, kind=kind, exit_code=exit_code))

    def _print(self, output: "Output") -> int:
        if not self._done:
            self._done = True
            self._write(
                output.model_copy(update={"verb": self._command}).model_dump_json(indent=1, by_alias=True) + "\n"
            )
        return output.exit_code


def wanted(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON (and not for help); argparse accepts the beginning of an option, too."""
    if any(word in ("-h", "--help", "--version") for word in words):
        return False
    return any(len(word) > 2 and "--json".startswith(word) for word in words)


@contextlib.contextmanager
def answering(words: Sequence[str]) -> Iterator[Answer]:
    """How this command line is answered. With ``--json`` whatever is printed meanwhile goes to standard error."""
    if not wanted(words):
        yield Answer()
        return
    with _stdout_kept() as write:
        answer = JsonAnswer(write)
        try:
            yield answer
        except Exception as error:  # its traceback follows on standard error
            answer.failure(f"{type(error).__name__}: {error}", type(error).__name__, 1)
            raise


@contextlib.contextmanager
def _stdout_kept() -> Iterator[Callable[[str], None]]:
    """Send standard output to standard error, of child processes too; yields a function that writes to the real one."""
    stream = sys.stdout
    try:
        real = stream.fileno() == 1
    except (AttributeError, OSError, ValueError):  # replaced by whoever embeds this, such as a test
        real = False
    if not real:

        def put(text: str) -> None:
            stream.write(text)
            stream.flush()

        with contextlib.redirect_stdout(sys.stderr):
            yield put
        return
    stream.flush()
    kept = os.dup(1)

    def write(text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(kept, data) :]

    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield write
    finally:
        os.dup2(kept, 1)
        os.close(kept)
