"""A user's own model class by its dotted path: ``model={_target_: my_module.MyNet, width: 3}``.

`_target_` is read into the part's ``name``; a name with dots is a path, so a run folder that stores the resolved
configuration opens again as long as the class can be imported: from an installed package, a folder of PYTHONPATH, or
a plain file in the working folder.
"""

import importlib
import os
import sys
from typing import Any

from fedimb.errors import ConfigError, error_from, nearest


def is_path(name: str) -> bool:
    """Whether a part's name is a dotted path: ``my_module.MyNet`` is, ``mlp`` is not."""
    return "." in name and all(word.isidentifier() for word in name.split("."))


def load_target(kind: str, path: str, base: type) -> type[Any]:
    """The class a dotted path names.

    Args:
        kind: kind of the part, for the error message.
        base: required base class.

    Raises:
        ConfigError: its module cannot be imported, has no such class, or the class is not a subclass of ``base``.
    """
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # last, so that a file never hides an installed module of the same name
    module, _, attribute = path.rpartition(".")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{kind} '{path}': no Python module '{error.name}'; run where its file is, put its folder on PYTHONPATH, "
            "or install it"
        ) from error
    except Exception as error:  # a user's module may raise anything while it is imported
        text = f"{kind} '{path}': importing {module} failed: {type(error).__name__}: {error}"
        raise error_from(ConfigError, text, error) from error
    found = getattr(loaded, attribute, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        own = {n for n, v in vars(loaded).items() if isinstance(v, type) and issubclass(v, base)} - {base.__name__}
        what = f"{module} has no '{attribute}'" if found is None else f"'{attribute}' is not a subclass of it"
        raise ConfigError(
            f"{kind} '{path}': expected a subclass of {base.__module__}.{base.__qualname__}; {what}."
            f"{nearest(attribute, own)}"
        )
    return found
