"""Join files: what a site sends to the coordinator to take part.

A site generates its own key; ``SITE.join.json`` carries the public key. Adding, removing or rotating one site writes
that site's files and no other's. The coordinator's folder says which sites *should* take part;
`fedimb.deploy.coordinator.registration` updates the SuperLink to match, now or at its next start. Modelled on NVFlare's
distributed provisioning.
"""

import json
import re
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from fedimb.deploy.files import parse_settings
from fedimb.deploy.home import SITE
from fedimb.deploy.pki import key_fingerprint
from fedimb.errors import ConfigError
from fedimb.schema import Strict

_MOST_BYTES = 65536


class JoinFile(Strict):
    """Content of SITE.join.json; all of it is public.

    Attributes:
        site: the site's name.
        public_key: one line in OpenSSH format.
        fedimb: version installed at the site.
        contact: whom the coordinator may call.
        created: UTC, ISO 8601.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    site: str = Field(pattern=SITE)
    public_key: str
    fedimb: str
    contact: str = ""
    created: str

    @property
    def key_fingerprint(self) -> str:
        """``SHA256:...`` of the public key. Raises ConfigError if the file contains no public key."""
        return key_fingerprint(self.public_key.encode(), f"{self.site}.join.json")


def check_site(name: str) -> str:
    """Return the name if it is a valid site name, else raise ConfigError."""
    if not re.fullmatch(SITE, name):
        raise ConfigError(
            f"'{name}' is not a valid site name: use a-z, 0-9 and '-', at most 40 characters, as in st-anna "
            "(it becomes a file name and a label; put the full name into --contact)"
        )
    return name


def read_join(path: Path) -> JoinFile:
    """Read a join file that a site sent.

    Raises:
        ConfigError: the file is missing or not JSON, a key is unknown or missing, or the site's name or public key is
            not valid.
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
        raise ConfigError(
            f"{path} is not a join file (JSON): ask the site for the one that fedimb node init wrote"
        ) from None
    join = parse_settings(found, JoinFile, str(path))
    key_fingerprint(join.public_key.encode(), str(path))
    return join


def write_join(path: Path, join: JoinFile) -> None:
    """Write a join file atomically (temporary file, then rename)."""
    text = json.dumps(join.model_dump(by_alias=True), indent=2, ensure_ascii=False) + "\n"
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
