"""Whether a run folder was made by this user in this working folder: only then may its own modules be imported there.

A run's configuration may name a class by its import path (`fedimb.registry.targets`), and Python looks for it in the
working folder too. In a folder that came from elsewhere, that would run whatever file lies there under that name. So a
run whose configuration names a path gets a tag: a hash of configuration and working folder, keyed with a random file
in the user's cache.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from fedimb.config.load import to_json
from fedimb.data.store import cache_dir
from fedimb.plain import Settings
from fedimb.registry.targets import is_path
from fedimb.schema import RunConfig


def names_modules(tree: Settings) -> bool:
    """Whether a configuration names a class by its import path."""
    return any(
        names_modules(value) if isinstance(value, dict) else key == "name" and isinstance(value, str) and is_path(value)
        for key, value in tree.items()
    )


def origin_tag(config: RunConfig) -> str:
    """The tag of a run started now; empty if its configuration names no import path, or no key can be kept."""
    if not names_modules(_parts(config.model_dump())):
        return ""
    return _tag(to_json(config).encode(), _key(create=True))


def made_here(config: bytes, tag: str) -> bool:
    """Whether a stored configuration was started by this user in the present working folder.

    Args:
        config: the content of ``config.json``.
        tag: of its seal.
    """
    return bool(tag) and hmac.compare_digest(tag, _tag(config, _key(create=False)) or "-")


def _parts(tree: Settings) -> Settings:
    """The configuration without its own name, which is a row's label."""
    return {key: value for key, value in tree.items() if isinstance(value, dict)}


def _tag(config: bytes, key: bytes) -> str:
    if not key:
        return ""
    return hmac.new(key, os.getcwd().encode() + b"\0" + config, hashlib.sha256).hexdigest()


def _key(create: bool) -> bytes:
    """This user's key; empty if there is none that only this user can read and write."""
    path = cache_dir("origin") / "key"
    with contextlib.suppress(OSError):
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(secrets.token_bytes(32))
        return path.read_bytes() if _private(path) else b""
    return b""


def _private(path: Path) -> bool:
    about = path.lstat()
    return stat.S_ISREG(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o077
