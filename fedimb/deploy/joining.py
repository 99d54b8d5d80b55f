"""Joining: what a site sends to take part, and what the coordinator keeps of it.

A site's key is born at the site; ``SITE.join.json`` carries its public half. Adding, removing or rotating one site
writes that site's files and no other's. The folder says who *should* take part;
`fedimb.deploy.coordinator.registration` brings a running SuperLink to it, at once or when it next starts. Source: ours,
after NVFlare's distributed provisioning.
"""

import json
import re
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from fedimb.deploy.files import parsed
from fedimb.deploy.home import SITE
from fedimb.deploy.pki import key_fingerprint
from fedimb.errors import ConfigError
from fedimb.schema import Strict

_MOST_BYTES = 65536


class JoinFile(Strict):
    """SITE.join.json, all public. ``public_key``: one OpenSSH line. ``created``: UTC, ISO 8601."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    site: str = Field(pattern=SITE)
    public_key: str
    fedimb: str
    contact: str = ""
    created: str

    @property
    def key_fingerprint(self) -> str:
        """``SHA256:...`` of the public key; ConfigError when there is none in it."""
        return key_fingerprint(self.public_key.encode(), f"{self.site}.join.json")


def check_site(name: str) -> str:
    """The name itself if a site may be called so, else ConfigError."""
    if not re.fullmatch(SITE, name):
        raise ConfigError(
            f"a site cannot be called '{name}': lower-case letters a-z, digits and '-', at most 40, as in st-anna "
            "(it becomes a file name and a label; write the full name into --contact)"
        )
    return name


def read_join(path: Path) -> JoinFile:
    """A join file as a site sent it.

    Raises:
        ConfigError: no such file, no JSON, an unknown or missing key, a site name that is none, or no public key.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if b"PRIVATE KEY" in raw:
        key_fingerprint(raw, str(path))
    try:
        found = json.loads(raw[:_MOST_BYTES].decode("utf-8"))
    except ValueError:
        raise ConfigError(f"{path} is no join file (JSON): ask the site for the one fedimb node init wrote") from None
    join = parsed(found, JoinFile, str(path))
    key_fingerprint(join.public_key.encode(), str(path))
    return join


def write_join(path: Path, join: JoinFile) -> None:
    """Write a join file by temporary file and rename."""
    text = json.dumps(join.model_dump(by_alias=True), indent=2, ensure_ascii=False) + "\n"
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
