"""Verbs of a verb, one file each: ``fedimb node init`` is in ``fedimb/cli/node/init.py``, and so on.

Each file has ``LINE``, what the list of verbs says of it, ``add_arguments(parser)`` and ``run(args) -> int | None``.
Nothing heavy may be imported at its top.
"""

import argparse
import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # argparse has no public name for what `add_subparsers` returns
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def register_folder(verbs: "Verbs", package: ModuleType, name: str, description: str) -> None:
    """Add the verb ``name``, the files of ``package`` its actions (``add_site.py`` is ``add-site``)."""
    parser = verbs.add_parser(name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        if not hasattr(module, "add_arguments"):
            continue
        action = actions.add_parser(
            found.name.replace("_", "-"),
            help=module.LINE,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(action)
        action.set_defaults(handler=module.run)
