"""Joining: what a site sends to take part, and what the coordinator keeps of it.

A site's key is born at the site; ``SITE.join.json`` carries its public half. Adding, removing or rotating one site
writes that site's files and no other's. The folder says who *should* take part; `fedimb.deploy.registration` brings
a running SuperLink to it, at once or when it next starts. Source: ours, after NVFlare's distributed provisioning.
"""

import contextlib
import datetime as dt
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from fedimb import __version__
from fedimb.config.schema import Strict
from fedimb.deploy.deployment import Deployment
from fedimb.deploy.files import parsed, refuse_readable, write_private
from fedimb.deploy.home import SITE, NodeHome
from fedimb.deploy.pki import check_ca, key_fingerprint, make_site_key, plain_digest
from fedimb.errors import ConfigError, nearest

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


def new_identity(root: Path, site: str, contact: str) -> JoinFile:
    """Make a site's key in ``root`` (``key`` 0600, ``key.pub``) and its join file; replaces what was there.

    Args:
        root: the node's folder.
        site: its name.
        contact: whom the coordinator may call.
    """
    private, public = make_site_key()
    write_private(root / "key", private)
    refuse_readable(root / "key")  # a file system without modes (a mounted share) would show here
    (root / "key.pub").write_bytes(public)
    created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    join = JoinFile(
        site=site, public_key=public.decode("ascii").strip(), fedimb=__version__, contact=contact, created=created
    )
    write_join(root / f"{site}.join.json", join)
    return join


def init_node(root: Path, site: str, address: tuple[str, int], ca: Path, told: str, contact: str) -> JoinFile:
    """Make a node's folder: identity, the coordinator's authority, node.yaml, a systemd unit.

    Args:
        root: the folder; must not exist.
        site: the site's name.
        address: (host, port) where the coordinator is reached.
        ca: the coordinator's ca.crt.
        told: its fingerprint as the coordinator read it out.
        contact: whom the coordinator may call.

    Raises:
        ConfigError: the folder exists, the name is none, or the authority is not the one that was read out.
    """
    from fedimb.deploy import units

    check_site(site)
    if root.exists():
        raise ConfigError(f"{root} exists: give another folder with --to, or fedimb node rotate for a new key")
    try:
        certificate = ca.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {ca}: {error.strerror}; ask the coordinator for ca.crt") from None
    check_ca(certificate, told, str(ca))
    text = units.node_yaml(site, address[0], address[1], plain_digest(told))
    with new_folder(root):
        (root / "ca.crt").write_bytes(certificate)
        join = new_identity(root, site, contact)
        (root / "fedimb-node.service").write_text(units.node_unit(root), encoding="utf-8")
        (root / "node.yaml").write_text(text, encoding="utf-8")  # last: with it the folder is a node's
        _ = NodeHome.open(root).config  # a wrong port, say
    return join


@contextlib.contextmanager
def new_folder(root: Path) -> Iterator[None]:
    """Make a folder for its owner alone, and remove it again when what fills it fails."""
    root.mkdir(mode=0o700, parents=True)
    try:
        root.chmod(0o700)  # whatever the umask says
        yield
    except BaseException:
        shutil.rmtree(root)
        raise


def add_site(deployment: Deployment, join: JoinFile) -> None:
    """Take a site in: writes ``sites/SITE.join.json``. The same file twice changes nothing.

    Raises:
        ConfigError: the site is there with another key, or another site has this key.
    """
    known = joined(deployment)
    if (there := known.get(join.site)) is not None and there.key_fingerprint != join.key_fingerprint:
        raise ConfigError(
            f"{join.site} is here with another key ({there.key_fingerprint}): if the site made a new one, "
            f"fedimb deploy rotate; if this is another hospital, it needs another name"
        )
    _refuse_shared_key(join, known)
    if there is None:
        write_join(_file(deployment, join.site), join)


def rotate(deployment: Deployment, join: JoinFile) -> None:
    """Replace a site's key by the one in a new join file.

    Raises:
        ConfigError: no such site, the same key again, or a key another site has.
    """
    known = joined(deployment)
    if known[_known(join.site, known)].key_fingerprint == join.key_fingerprint:
        raise ConfigError(f"{join.site} has this very key already: at the site, fedimb node rotate makes a new one")
    _refuse_shared_key(join, known)
    write_join(_file(deployment, join.site), join)


def remove_site(deployment: Deployment, site: str) -> None:
    """Leave a site out from now on: removes its join file. Runs it took part in keep their records.

    Raises:
        ConfigError: no such site.
    """
    _file(deployment, _known(site, joined(deployment))).unlink()


def joined(deployment: Deployment) -> dict[str, JoinFile]:
    """The sites added, by name, sorted."""
    found = {site: read_join(_file(deployment, site)) for site in deployment.sites()}
    for site, join in found.items():
        if join.site != site:
            raise ConfigError(f"{_file(deployment, site)} is of site '{join.site}': files are not to be renamed")
    return found


def _file(deployment: Deployment, site: str) -> Path:
    return deployment.folder("sites") / f"{check_site(site)}.join.json"


def _known(site: str, known: dict[str, JoinFile]) -> str:
    if site not in known:
        raise ConfigError(f"no site '{site}' here.{nearest(site, known) or ' None was added yet.'}")
    return site


def _refuse_shared_key(join: JoinFile, known: dict[str, JoinFile]) -> None:
    for site, other in known.items():
        if site != join.site and other.key_fingerprint == join.key_fingerprint:
            raise ConfigError(f"{join.site} sent the key of {site}: each node makes its own with fedimb node init")
