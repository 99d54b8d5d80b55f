"""Which bundle a node accepts: the one this installation of fedimb would itself ship, and no other.

A Flower app bundle is a zip of files that Flower imports wherever the run goes. fedimb's holds one file,
pyproject.toml, which names `fedimb.deploy.coordinator.app:app` and `fedimb.deploy.site.app:app`: the packages installed
where it arrives. What is compared is the content after unpacking, because a zip of the same content can differ from one
builder to the next.
"""

import hashlib
import io
import json
import tomllib
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import tomli_w

from fedimb.errors import FedimbError

PROJECT = "pyproject.toml"
BUNDLE = Path(__file__).parent / "bundle" / PROJECT
"""What `fedimb deploy run` ships."""
MANIFEST = ".info/CONTENT"
_MOST_BYTES = 1 << 16  # fedimb's own is under a thousand


class ForeignBundle(FedimbError):
    """A bundle not fedimb's own, or of another release. The text goes to the coordinator: no facts of a site."""


@lru_cache(maxsize=1)
def own_project() -> bytes:
    """pyproject.toml of the installed bundle, written again as ``flwr build`` writes it into a zip."""
    text = BUNDLE.read_text(encoding="utf-8")
    project = tomllib.loads(text)
    project.get("tool", {}).get("flwr", {}).pop("federations", None)
    return tomli_w.dumps(project).encode()


def content_sha(content: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) over names and contents of a bundle's files, without Flower's own list of them."""
    hashed = {name: hashlib.sha256(data).hexdigest() for name, data in content.items() if name != MANIFEST}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def bundle_sha() -> str:
    """`content_sha` of the bundle this installation ships: a constant of the release."""
    return content_sha({PROJECT: own_project()})


def content_of(bundle: bytes) -> dict[str, bytes]:
    """Files of a bundle, read in memory; nothing is written anywhere.

    Raises:
        ForeignBundle: no zip, or one that cannot be fedimb's: another file in it, or larger than 64 KiB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            entries = archive.infolist()
            others = [entry.filename for entry in entries if entry.filename not in (PROJECT, MANIFEST)]
            if others:
                shown = ", ".join(repr(name[:80]) for name in others[:2])
                more = f" and {len(others) - 2} more" if len(others) > 2 else ""
                raise ForeignBundle(f"it brings files of its own: {shown}{more}")
            if len({entry.filename for entry in entries}) < len(entries):
                raise ForeignBundle("it holds two files of one name")
            if sum(entry.file_size for entry in entries) > _MOST_BYTES:
                raise ForeignBundle("it is larger than fedimb's own, which is one small pyproject.toml")
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ForeignBundle(f"it is no readable zip ({type(error).__name__})") from error


def check_bundle(bundle: bytes) -> None:
    """Nothing, if this is the bundle that the installed fedimb ships.

    Raises:
        ForeignBundle: anything else; another release of fedimb is told apart from foreign code.
    """
    content = content_of(bundle)
    if content_sha(content) == bundle_sha():
        return
    theirs, ours = _named(content.get(PROJECT, b"")), _named(own_project())
    if theirs[:2] != ours[:2]:
        raise ForeignBundle(f"it calls itself {theirs[0]}/{theirs[1]}, fedimb's is {ours[0]}/{ours[1]}")
    if theirs[2] != ours[2]:
        raise ForeignBundle(
            f"version mismatch: the coordinator runs {theirs[1]} {theirs[2]}, this site {ours[2]}; install the same "
            "release of fedimb at both"
        )
    raise ForeignBundle(
        f"it is called {theirs[1]} {theirs[2]} as this site's is, but its content differs: install fedimb again at the "
        "coordinator, unchanged"
    )


def _named(project: bytes) -> tuple[str, str, str]:
    """(publisher, name, version), each shortened, ``?`` where it does not say."""
    try:
        tree: object = tomllib.loads(project.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        return "?", "?", "?"
    found = []
    for path in (("tool", "flwr", "app", "publisher"), ("project", "name"), ("project", "version")):
        value = tree
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        found.append("".join(c for c in value if c.isprintable())[:60] if isinstance(value, str) and value else "?")
    return found[0], found[1], found[2]
