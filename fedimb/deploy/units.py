"""Files fedimb writes for people and for other programs: systemd units, node.yaml, README."""

import getpass
import string
import sys
from importlib import resources
from pathlib import Path


class _At(string.Template):
    """A template in which ``@name`` is replaced; nginx and the shell need ``$`` themselves."""

    delimiter = "@"


def render(name: str, /, **words: object) -> str:
    """Render the template ``name`` (a file in fedimb/deploy/templates), replacing every ``@word``."""
    text = resources.files("fedimb.deploy.templates").joinpath(name).read_text("utf-8")
    return _At(text).substitute({key: str(value) for key, value in words.items()})


def place(root: Path) -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "fedimb"
    command = str(Path(sys.executable).parent / "fedimb")
    return {"user": user, "fedimb": _in_quotes(command), "root": _in_quotes(str(root))}


def _in_quotes(path: str) -> str:
    """Escape a path for use between double quotes in a systemd unit."""
    return path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
