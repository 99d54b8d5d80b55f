"""A site's identity: its key, generated at the site, and the folder of a new node."""

import datetime as dt
from pathlib import Path

from fedimb import __version__
from fedimb.deploy.files import new_folder, refuse_readable, write_private
from fedimb.deploy.home import NodeHome
from fedimb.deploy.joining import JoinFile, check_site, write_join
from fedimb.deploy.pki import check_ca, make_site_key, parse_fingerprint
from fedimb.deploy.site import units
from fedimb.errors import ConfigError


def new_identity(root: Path, site: str, contact: str) -> JoinFile:
    """Make a site's key in ``root`` (``key`` 0600, ``key.pub``) and its join file, replacing existing ones.

    Args:
        root: the node's folder.
        site: the site's name.
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


def init_node(root: Path, site: str, address: tuple[str, int], ca: Path, fingerprint: str, contact: str) -> JoinFile:
    """Make a node's folder: identity, the coordinator's authority, node.yaml, a systemd unit.

    Args:
        root: the folder; must not exist.
        site: the site's name.
        address: (host, port) where the coordinator is reached.
        ca: the coordinator's ca.crt.
        fingerprint: SHA-256 of ca.crt, as the coordinator read it out.
        contact: whom the coordinator may call.

    Raises:
        ConfigError: the folder exists, the name is not valid, or the authority is not the one that was read out.
    """
    check_site(site)
    if root.exists():
        raise ConfigError(
            f"{root} already exists: give another folder with --to, or run fedimb node rotate for a new key"
        )
    try:
        certificate = ca.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {ca}: {error.strerror}; ask the coordinator for ca.crt") from None
    check_ca(certificate, fingerprint, str(ca))
    text = units.node_yaml(site, address[0], address[1], parse_fingerprint(fingerprint))
    with new_folder(root):
        (root / "ca.crt").write_bytes(certificate)
        join = new_identity(root, site, contact)
        (root / "fedimb-node.service").write_text(units.node_unit(root), encoding="utf-8")
        (root / "node.yaml").write_text(text, encoding="utf-8")  # last: this file makes the folder a node's
        _ = NodeHome.open(root).config  # finds a wrong port, for example
    return join
