"""The one app bundle a node accepts: the bundle that this installation of fedimb would ship itself.

A Flower app bundle is a zip of files that Flower imports wherever the run goes. fedimb's bundle holds a single file,
pyproject.toml, which names `fedimb.deploy.coordinator.app:app` and `fedimb.deploy.site.app:app`, so each machine runs
the fedimb installed there. The unpacked content is compared, because zips of the same content can differ between
builders.
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
"""The project file that `fedimb deploy run` ships."""
MANIFEST = ".info/CONTENT"
_MOST_BYTES = 1 << 16  # fedimb's own is under a thousand


class ForeignBundle(FedimbError):
    """The bundle is not fedimb's own, or comes from another release.

    The text is sent to the coordinator, so it must not contain anything about the site.
    """


@lru_cache(maxsize=1)
def own_project() -> bytes:
    """pyproject.toml of the installed bundle, serialized the way ``flwr build`` writes it into a zip."""
    text = BUNDLE.read_text(encoding="utf-8")
    project = tomllib.loads(text)
    project.get("tool", {}).get("flwr", {}).pop("federations", None)
    return tomli_w.dumps(project).encode()


def content_sha(content: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) over the names and contents of a bundle's files, ignoring Flower's own file list."""
    hashed = {name: hashlib.sha256(data).hexdigest() for name, data in content.items() if name != MANIFEST}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def bundle_sha() -> str:
    """`content_sha` of the bundle this installation ships. It is constant within a release."""
    return content_sha({PROJECT: own_project()})


def content_of(bundle: bytes) -> dict[str, bytes]:
    """Read a bundle's files in memory, without writing anything to disk.

    Raises:
        ForeignBundle: not a zip, or one that cannot be fedimb's because it holds other files or is larger than 64 KiB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            entries = archive.infolist()
            others = [entry.filename for entry in entries if entry.filename not in (PROJECT, MANIFEST)]
            if others:
                shown = ", ".join(repr(name[:80]) for name in others[:2])
                more = f" and {len(others) - 2} more" if len(others) > 2 else ""
                raise ForeignBundle(f"it contains other files: {shown}{more}")
            if len({entry.filename for entry in entries}) < len(entries):
                raise ForeignBundle("it contains two files with the same name")
            if sum(entry.file_size for entry in entries) > _MOST_BYTES:
                raise ForeignBundle("it is larger than fedimb's own, which is one small pyproject.toml")
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ForeignBundle(f"it is not a readable zip ({type(error).__name__})") from error


def check_bundle(bundle: bytes) -> None:
    """Check that this is the bundle that the installed fedimb ships.

    Raises:
        ForeignBundle: it is not. The text distinguishes another release of fedimb from foreign code.
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
    """(publisher, name, version) as the project file states them, shortened; ``?`` where it is missing."""
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
