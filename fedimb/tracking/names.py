"""Names MLflow accepts, from names that hold whatever a class was called."""

import hashlib
import posixpath
import re

_LENGTH = 250
_REFUSED = re.compile(r"[^\w.\- :/]")


def safe_name(name: str) -> str:
    """The name itself when MLflow takes it as a metric or parameter, else a close one that is still unique.

    MLflow refuses a whole batch for one name with a bracket, an empty part or more than 250 characters; a
    short hash of the original keeps two changed names apart.
    """
    close = posixpath.normpath(_REFUSED.sub("_", name)).replace("..", "_").strip("/")
    if close == name and close not in ("", ".") and len(name) <= _LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{close[: _LENGTH - 9]}_{digest}"
