"""How a verb is added: a module with ``register(verbs)``, named in `fedimb.cli.main.VERBS`.

Its handler returns an `fedimb.cli.output.Output`, annotated as such: ``--json`` prints it, docs/json.md documents it.

A verb with several actions (``fedimb node init``, ``fedimb node run``) has a class for each. Such a module must not
import anything heavy at the top, so that help is shown immediately.
"""

import argparse
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from fedimb.cli.output import Output

    # argparse has no public name for the result of `add_subparsers`
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


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
