"""A user's own model class by its dotted path: ``model={_target_: my_module.MyNet, width: 3}``.

`_target_` is read into the part's ``name``; a name with dots is a path, so a run folder that stores the resolved
configuration opens again as long as the class can be imported: from an installed package, a folder of PYTHONPATH, or
a plain file in the working folder. The last only if the user typed the path, or started the run in this folder, or says
``--trust``: a run folder from elsewhere must not run a file that lies beside it (`installed_only`).
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from fedimb.errors import ConfigError, error_from, nearest

_INSTALLED_ONLY = ContextVar("installed_only", default=False)
_TRUSTED = ContextVar("trusted", default=False)


@contextlib.contextmanager
def trusted(active: bool = True) -> Iterator[None]:
    """Within the block, if ``active``, `installed_only` has no effect: the user said ``--trust``."""
    token = _TRUSTED.set(active or _TRUSTED.get())
    try:
        yield
    finally:
        _TRUSTED.reset(token)


@contextlib.contextmanager
def installed_only(active: bool) -> Iterator[None]:
    """Within the block, if ``active``, modules of the working folder are not imported, unless PYTHONPATH names it."""
    token = _INSTALLED_ONLY.set(active)
    try:
        yield
    finally:
        _INSTALLED_ONLY.reset(token)


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
    module, _, attribute = path.rpartition(".")
    guarded = _INSTALLED_ONLY.get() and not _TRUSTED.get()
    try:
        with _without_working_folder() if guarded else _with_working_folder():
            loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if guarded and _in_working_folder(module):
            raise ConfigError(
                f"{kind} '{path}': {module} is a file of the working folder ({os.getcwd()}), and the run was not "
                "started here by you: read the file, then give --trust to import it, or put its folder on PYTHONPATH"
            ) from error
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


@contextlib.contextmanager
def _with_working_folder() -> Iterator[None]:
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # last, so that a file never hides an installed module of the same name
    yield


@contextlib.contextmanager
def _without_working_folder() -> Iterator[None]:
    """Within the block, Python does not look for modules in the working folder, unless PYTHONPATH names it."""
    before, here = list(sys.path), os.path.realpath(os.getcwd())
    named = {os.path.realpath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p}
    if here not in named:
        sys.path[:] = [p for p in before if os.path.realpath(p or ".") != here]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _in_working_folder(module: str) -> bool:
    top = os.path.join(os.getcwd(), module.partition(".")[0])
    return os.path.isfile(top + ".py") or os.path.isdir(top)
