"""All commands of fedimb with their parsers, for what needs to know every one: schemas, shell completion, tests."""

import argparse
from collections.abc import Iterator

from fedimb.cli.json_mode import leaves
from fedimb.cli.main import VERBS, _parser


def every_leaf() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """All actions of all verbs, by what is typed: ``("runs list", ...)``. Imports every verb's module."""
    for verb in VERBS:
        (verbs,) = (a for a in _parser(verb)._actions if isinstance(a, argparse._SubParsersAction))
        yield from leaves(verbs.choices[verb], verb)
