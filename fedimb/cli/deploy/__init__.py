"""``fedimb deploy``: the coordinator's side of hospital nodes."""

import sys
from typing import TYPE_CHECKING

from fedimb.cli.verbs import register_folder

if TYPE_CHECKING:
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
The coordinator's side of hospital nodes: certificates, sites, study plans, the servers, runs (docs/coordinator.md)."""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    register_folder(verbs, sys.modules[__name__], "deploy", _ABOUT)
