"""How a verb is added: a module with ``register(verbs)``, named in `fedimb.cli.main.VERBS`.

Its handler returns an `fedimb.cli.output.Output`, annotated as such: ``--json`` prints it, docs/json.md documents it.

A verb with several actions (``fedimb node init``, ``fedimb node run``) has a class for each. Such a module must not
import anything heavy at the top, so that help is shown immediately.
"""

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from fedimb.errors import nearest

if TYPE_CHECKING:
    from fedimb.cli.output.base import Output

    # argparse has no public name for the result of `add_subparsers`
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


class Parser(argparse.ArgumentParser):
    """An argument parser that offers the nearest valid word for a mistyped one, in one line, with exit code 2."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            option = "/".join(action.option_strings)
            what = f"{option} {value}: not a valid choice" if option else f"no {str(action.metavar).lower()} '{value}'"
            self.exit(2, f"{self.prog}: {what}.{nearest(str(value), action.choices)} See {self.prog} --help\n")

    def error(self, message: str) -> NoReturn:
        """Without the word that names an action, print which actions there are."""
        if self._subparsers is not None:
            self.print_help(sys.stderr)
            self.exit(2, f"\n{self.prog}: {message}\n")
        super().error(message)


def split_words(first: str, rest: Sequence[str]) -> tuple[str, list[str]]:
    """(the file, the key=value settings) of words given in any order; argparse takes the first for the file."""
    words = [first, *rest]
    file = next((word for word in words if "=" not in word or Path(word).expanduser().exists()), first)
    words.remove(file)
    return file, words


class Action:
    """One action of a verb; a subclass's docstring is the action's help text.

    Attributes:
        name: the action as typed.
        line: its line in the list of actions.
    """

    name: ClassVar[str]
    line: ClassVar[str]

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the action's options and arguments."""

    @staticmethod
    def run(args: argparse.Namespace) -> "Output | int | None":
        """Run the action; returns its result, which ``--json`` prints, or an exit code if it has none, as a server."""
        raise NotImplementedError


def register_actions(verbs: "Verbs", name: str, about: str, actions: Sequence[type[Action]]) -> None:
    """Add the verb ``name`` with these actions to ``argparse``'s subparsers, sorted by name."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = verbs.add_parser(name, description=about, formatter_class=raw)
    found = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action in sorted(actions, key=lambda action: action.name):
        about = inspect.cleandoc(action.__doc__ or "")
        one = found.add_parser(action.name, help=action.line, description=about, formatter_class=raw)
        one.set_defaults(handler=action.run)  # those below it may have their own
        action.add_arguments(one)
