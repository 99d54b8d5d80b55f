"""Installed distributions as a run imports them: version, the hash of their recorded files, and edits since."""

import base64
import hashlib
import os
import re
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path

from fedimb.registry import entries

GONE = "missing"
"""In place of a hash: there is no such file or distribution now."""

TOOLS = frozenset(
    {
        # The command line and the terminal.
        *("argcomplete", "click", "colorama", "pygments", "rich", "shellingham", "tqdm", "typer"),
        # They read the configuration, which is part of the identity as such.
        *("antlr4-python3-runtime", "hydra-core", "omegaconf", "pyyaml", "ruamel.yaml"),
        # They get copies of a run's metrics, or draw them.
        *(
            "alembic",
            "contourpy",
            "cycler",
            "fonttools",
            "gitpython",
            "graphene",
            "graphql-core",
            "jinja2",
            "kiwisolver",
        ),
        *("markupsafe", "matplotlib", "mlflow", "mlflow-skinny", "mlflow-tracing", "sqlalchemy"),
        # They carry messages unchanged: runs on ray and inline agree bit for bit, which tests check.
        *("msgpack", "psutil", "ray"),
        # They install, measure and test.
        *(
            "coverage",
            "execnet",
            "hypothesis",
            "iniconfig",
            "pip",
            "pluggy",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
        ),
        *("setuptools", "wheel"),
    }
)
"""Distributions that cannot change a run's numbers, in lower case."""


@lru_cache(maxsize=4)
def metadata_folders(path: tuple[str, ...]) -> dict[str, Path]:
    """Every installed distribution's metadata folder, by name in lower case."""
    found: dict[str, Path] = {}
    for folder in path:
        for info in sorted(Path(folder or ".").glob("*.dist-info")):
            if (info / "RECORD").is_file():
                name = info.name.removesuffix(".dist-info").rpartition("-")[0]
                found.setdefault(name.lower().replace("_", "-"), info)
    return found


@lru_cache(maxsize=4)
def _tops(path: tuple[str, ...]) -> dict[str, set[str]]:
    """Names of the distributions that have files of a top-level module."""
    found: dict[str, set[str]] = {}
    for name, info in metadata_folders(path).items():
        listed = info / "top_level.txt"
        text = (listed if listed.is_file() else info / "RECORD").read_text(encoding="utf-8")
        for top in set(text.split() if listed.is_file() else _TOP.findall(text)):
            found.setdefault(top, set()).add(name)
    return found


_TOP = re.compile(r"^\"?([^/.,\"\n]+)[^,\n]*\.(?:py|so|pyd),", re.MULTILINE)
_FILES = re.compile(r"^\"?([^,\"\n]+\.(?:py|so|pyd))\"?,(?:sha256=)?([^,\n]*),", re.MULTILINE)


def imported_distributions(used: set[str], wanted: set[str]) -> tuple[set[str], set[str]]:
    """Names of the installed distributions whose parts the run uses, and of the others that this process imported.

    `TOOLS` are not among them, nor plug-ins that the run does not use. One that uses a plug-in may use others by it.

    Args:
        used: names of parts.
        wanted: top-level modules that code outside distributions imports.
    """
    tops = _tops(tuple(sys.path))
    found = set().union(*(tops.get(name, set()) for name in {name.partition(".")[0] for name in list(sys.modules)}))
    plugged: dict[str, bool] = {}
    for entry in entries.registered():
        for name in tops.get(str(getattr(entry.factory, "__module__", "")).partition(".")[0], ()):
            plugged[name] = plugged.get(name, False) or entry.name in used
    plugged = {name: here or any(name in tops.get(top, ()) for top in wanted) for name, here in plugged.items()}
    plugged.pop("fedimb", None)
    plugins = set(plugged) if any(plugged.values()) else set()
    return plugins, found - plugged.keys() - TOOLS - {"fedimb"}


@lru_cache(maxsize=512)
def installed_sha(name: str) -> str:
    """`recorded_sha`, once per process: what it has imported stays as it was."""
    return recorded_sha(metadata_folders(tuple(sys.path))[name])


def recorded_sha(info: Path) -> str:
    """Version and hash of an installed distribution's RECORD, and of files that were edited since it was installed.

    A file is read again only if it is newer than RECORD, so this takes milliseconds.
    """
    version = info.name.removesuffix(".dist-info").rpartition("-")[2]
    record = info / "RECORD"
    text = record.read_bytes()
    sha = hashlib.sha256(text)
    installed = record.stat().st_mtime_ns + 2_000_000_000
    for path, file, recorded in _files_of(str(info.parent), text):
        try:
            if os.stat(path).st_mtime_ns <= installed:
                continue
            content = Path(path).read_bytes()
        except OSError:
            sha.update(f"{file} {GONE}\n".encode())
            continue
        if _urlsafe(content) != recorded:
            sha.update(f"{file} {hashlib.sha256(content).hexdigest()}\n".encode())
    return f"{version} {sha.hexdigest()}"


@lru_cache(maxsize=512)  # every resume asks again, and torch alone lists thousands of files
def _files_of(site: str, record: bytes) -> list[tuple[str, str, str]]:
    """(path, name in RECORD, hash in RECORD) of each source and library file."""
    return [(f"{site}/{file}", file, recorded) for file, recorded in _FILES.findall(record.decode())]


def _urlsafe(content: bytes) -> str:
    """sha256 as RECORD writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


@lru_cache(maxsize=1 << 15)
def belongs_to_distribution(origin: str, path: tuple[str, ...]) -> bool:
    """Whether a file is one of an installed distribution, or of Python itself."""
    for site in _sites(path):
        if origin.startswith(site) and origin[len(site) :].partition("/")[0].partition(".")[0] in _tops(path):
            return True
    library = f"{sysconfig.get_path('stdlib')}/"
    return origin.startswith(library) and "-packages/" not in origin


@lru_cache(maxsize=4)
def _sites(path: tuple[str, ...]) -> tuple[str, ...]:
    """The folders that distributions are installed in."""
    return tuple(sorted({f"{info.parent}/" for info in metadata_folders(path).values()}))
