"""Files of a deployment: strictly validated YAML, and secrets that only their owner may read."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fedimb.errors import ConfigError, nearest
from fedimb.strict_yaml import load_yaml

Shape = TypeVar("Shape", bound=BaseModel)


class Folder:
    """A private folder, readable by its owner only.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def file(self, *names: str) -> Path:
        """A path in the folder."""
        return self.root.joinpath(*names)

    def folder(self, *names: str) -> Path:
        """A subfolder. It and its missing parents are created, readable by the owner only."""
        path = self.root
        for name in names:
            path = path / name
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


def read_yaml(path: Path, shape: type[Shape]) -> Shape:
    """Read a YAML file and validate it as ``shape``.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown (the text suggests the nearest one), or a value
            is wrong (the text names its place).
    """
    try:
        raw = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    return parse_settings(raw or {}, shape, str(path))


def parse_settings(raw: object, shape: type[Shape], place: str) -> Shape:
    """Validate a mapping as ``shape``. Raises ConfigError that names the place and the first error."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{place} contains no settings: write lines of 'key: value'")
    try:
        return shape.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            model: Any = shape
            for part in first["loc"][:-1]:
                model = getattr(model.model_fields.get(str(part)), "annotation", None) or model
            known = getattr(model, "model_fields", {})
            raise ConfigError(f"{place}: no setting '{key}'.{nearest(str(first['loc'][-1]), known)}") from None
        raise ConfigError(f"{place}: {key}: {first['msg']} (found {first['input']!r})") from None


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from the first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def refuse_readable(path: Path) -> None:
    """Raise ConfigError if anyone but the owner may read or write a secret file."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(
            f"{path} can be read by others (mode {mode:04o}): run chmod 600 on it, and make a new key if in doubt"
        )


@contextlib.contextmanager
def new_folder(root: Path) -> Iterator[None]:
    """Create a private folder, and remove it again if the block that fills it fails."""
    root.mkdir(mode=0o700, parents=True)
    try:
        root.chmod(0o700)  # whatever the umask says
        yield
    except BaseException:
        shutil.rmtree(root)
        raise
