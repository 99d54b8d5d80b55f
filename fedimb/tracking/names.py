"""Turns arbitrary names, such as class names, into names MLflow accepts."""

import hashlib
import posixpath
import re

_LENGTH = 250
_REFUSED = re.compile(r"[^\w.\- :/]")


def safe_name(name: str) -> str:
    """The name itself if MLflow accepts it for a metric or parameter, else a similar one that is still unique.

    MLflow refuses a whole batch because of one name with a bracket, an empty part or more than 250 characters; a short
    hash of the original distinguishes changed names.
    """
    close = posixpath.normpath(_REFUSED.sub("_", name)).replace("..", "_").strip("/")
    if close == name and close not in ("", ".") and len(name) <= _LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{close[: _LENGTH - 9]}_{digest}"
