"""Everything a node needs in one file, for a hospital whose machines cannot reach a package index.

The tar contains wheels (fedimb and the exact versions of everything it needs, as installed here), SHA256SUMS, a table
of licences, and install.sh, which needs neither root nor a network. requirements.txt lists every wheel with its hash,
and pip installs nothing else: it uses no index and none of the machine's settings.
"""

import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from fedimb import __version__
from fedimb.errors import ConfigError, RunFailed, nearest

_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "fedimb", "strategies", "clients", "configs")
_UNKNOWN = "not stated; see the wheel"


@dataclass(frozen=True)
class Package:
    """One package: name and version as pip writes them, licence and address from its own metadata."""

    name: str
    version: str
    licence: str
    address: str


def required_packages(extras: Iterable[str] = (), without: Iterable[str] = ()) -> list[Package]:
    """fedimb's direct and indirect dependencies, at the versions installed here, sorted by name; without fedimb itself.

    Args:
        extras: extras of fedimb, such as ``generate`` or ``dicom``.
        without: packages to leave out, along with dependencies that only they need.

    Raises:
        ConfigError: a required package is not installed here, or an extra or a package to leave out does not exist.
    """
    left = {canonicalize_name(name) for name in without}
    found: dict[str, Package] = {}
    open_: list[tuple[str, frozenset[str]]] = [("fedimb", frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    known = {"fedimb"}
    _check_extras(extras)
    while open_:
        name, wanted = open_.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        here = _installed(name)
        if name != "fedimb":
            found[name] = package_facts(here)
        for text in here.requires or ():
            one = Requirement(text)
            below = canonicalize_name(one.name)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                known.add(below)
                if below not in left:
                    open_.append((below, frozenset(one.extras)))
    if strange := sorted(left - known):
        raise ConfigError(f"--without {strange[0]}: fedimb does not need it.{nearest(strange[0], known)}")
    return [found[name] for name in sorted(found)]


def _check_extras(extras: Iterable[str]) -> None:
    offered = _installed("fedimb").metadata.get_all("Provides-Extra") or []
    for extra in extras:
        if extra not in offered:
            raise ConfigError(f"fedimb has no extra '{extra}'.{nearest(extra, offered)}")


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise ConfigError(f"{name} is needed but not installed here: install it, then make the bundle again") from None


def package_facts(package: Distribution) -> Package:
    """Name, version, licence and address of a package, from its own metadata."""
    facts: Any = package.metadata
    classified = [
        line.rpartition(" :: ")[2] for line in facts.get_all("Classifier") or () if line.startswith("License")
    ]
    free = (facts.get("License") or "").strip().partition("\n")[0][:80]
    licence = facts.get("License-Expression") or ", ".join(classified) or (free if free != "UNKNOWN" else "")
    links = [line.partition(", ")[2] for line in facts.get_all("Project-URL") or ()]
    address = facts.get("Home-page") or next(iter(links), "")
    return Package(canonicalize_name(facts["Name"]), package.version, licence or _UNKNOWN, address)


def write_bundle(
    to: Path,
    extras: Sequence[str] = (),
    without: Sequence[str] = (),
    wheel: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the tar.

    Args:
        to: the folder the tar is written to.
        extras: extras of fedimb, see `required_packages`.
        without: packages that the site already has, see `required_packages`.
        wheel: fedimb's own wheel (default: built from the source it was installed from, else from the index).
        say: called with a line of progress for each step.

    Returns:
        The file, named by release, Python and machine.

    Raises:
        ConfigError: see `required_packages`.
        RunFailed: pip could not get or build a package; the text contains pip's output.
    """
    packages = required_packages(extras, without)
    name = f"fedimb-node-{__version__}-{_tag()}"
    with tempfile.TemporaryDirectory(prefix="fedimb-bundle-") as temporary:
        root = Path(temporary) / name
        wheels = root / "wheels"
        wheels.mkdir(parents=True)
        say(f"getting {len(packages)} packages in the versions installed here")
        pins = [f"{one.name}=={one.version}" for one in packages] + [f"pip=={_installed('pip').version}"]
        _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), *pins)
        say("adding fedimb's own wheel")
        _own_wheel(wheels, wheel, Path(temporary))
        _write_texts(root, packages, without)
        to.mkdir(parents=True, exist_ok=True)
        target = to / f"{name}.tar"
        part = target.with_suffix(".part")
        with tarfile.open(part, "w") as tar:
            tar.add(root, name, filter=_anonymous)
        part.replace(target)
    return target


def _tag() -> str:
    return f"py{sys.version_info[0]}{sys.version_info[1]}-{platform.system().lower()}-{platform.machine()}"


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.name.endswith(".sh") else 0o644
    return entry


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", *words, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RunFailed(f"pip {words[0]} failed: {(done.stderr or done.stdout).strip()[-800:]}")


def _own_wheel(wheels: Path, given: Path | None, temporary: Path) -> None:
    if given is not None:
        if not given.is_file() or not given.name.startswith(f"fedimb-{__version__}-"):
            raise ConfigError(f"{given} is not a wheel of fedimb {__version__}, the version running here")
        shutil.copy(given, wheels)
        return
    origin = json.loads(_installed("fedimb").read_text("direct_url.json") or "{}")
    source = Path(unquote(urlsplit(origin.get("url", "")).path))
    if "dir_info" not in origin or not (source / "pyproject.toml").is_file():
        _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), f"fedimb=={__version__}")
        return
    copy = temporary / "source"  # a build leaves files in the source folder
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for part in _SOURCES:
        if (source / part).is_dir():
            shutil.copytree(source / part, copy / part, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source / part, copy / part)
    _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(copy))


def _write_texts(root: Path, packages: Sequence[Package], without: Sequence[str]) -> None:
    lines = []
    for path in sorted((root / "wheels").iterdir()):
        name, version, _, _ = parse_wheel_filename(path.name)
        lines.append(f"{name}=={version} --hash=sha256:{_sha(path)}")
    (root / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    own = [package_facts(_installed("fedimb")), package_facts(_installed("pip"))]
    rows = [
        (one.name, one.version, one.licence, one.address) for one in sorted([*own, *packages], key=lambda p: p.name)
    ]
    table = [("package", "version", "licence, as it states it", "address"), ("---",) * 4, *rows]
    text = "\n".join("| " + " | ".join(re.sub(r"[|\n]", " ", cell) for cell in row) + " |" for row in table)
    (root / "LICENCES.md").write_text(f"# What is in this bundle\n\n{text}\n", encoding="utf-8")
    script = (files("fedimb.deploy.templates") / "install.sh.tmpl").read_text(encoding="utf-8")
    words = {"RELEASE": __version__, "MINOR": str(sys.version_info[1]), "MACHINE": platform.machine()}
    words["WITHOUT"] = " ".join(sorted({canonicalize_name(name) for name in without}))
    for word, value in words.items():
        script = script.replace(f"@{word}@", value)
    (root / "install.sh").write_text(script, encoding="utf-8")
    sums = [f"{_sha(path)}  {path.relative_to(root)}" for path in sorted(root.rglob("*")) if path.is_file()]
    (root / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")


def _sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
