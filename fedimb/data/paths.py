"""Where data are stored: resolves a path of the configuration to an existing file or folder."""

import os
import warnings
from pathlib import Path
from typing import Any

from fedimb.errors import DataError

VARIABLE = "FEDIMB_DATA_DIR"


def find_data(path: str | Path) -> Path:
    """The absolute path of a file or folder; a relative path is looked up in the current folder, then in
    ``$FEDIMB_DATA_DIR``.

    Raises:
        DataError: the path is empty, or found in neither place; the message names both.
    """
    if not str(path).strip():
        raise DataError("the path of the data is empty: give a file or folder")
    given = Path(os.path.expanduser(path))
    if given.is_absolute():
        if not os.path.exists(given):
            raise DataError(f"no file or folder {given}: check the path of the data")
        return given
    here, root = Path.cwd(), os.environ.get(VARIABLE)
    for folder in (here, Path(root).absolute() if root else None):
        # os.path.exists, not Path.exists: a name that is too long is absent, not an OSError.
        if folder is not None and os.path.exists(folder / given):
            return folder / given
    there = f"in ${VARIABLE} ({root})" if root else f"elsewhere (${VARIABLE} is not set)"
    raise DataError(
        f"no '{given}' in the current folder ({here}) nor {there}: "
        f"give its path, or set {VARIABLE} to the folder that holds it"
    )


def __getattr__(name: str) -> Any:
    if name != "find":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("fedimb.data.paths.find is called find_data now: use that", DeprecationWarning, stacklevel=2)
    return find_data
