"""``fedimb node``: a hospital's node, at the hospital."""

import sys
from typing import TYPE_CHECKING

from fedimb.cli.verbs import register_folder

if TYPE_CHECKING:
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
A hospital's node: its key, its data, what it agrees to, and the process that takes part. Run at the hospital; each
action works on the node's folder: --home DIR, else $FEDIMB_NODE_HOME, else the working folder (docs/hospital.md)."""


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    register_folder(verbs, sys.modules[__name__], "node", _ABOUT)
