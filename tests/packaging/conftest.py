"""One build for the whole folder: a copy of the sources, its wheel, its sdist and the wheel made from that."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("fedimb", "strategies", "clients", "configs", "tests", "experiments", "docs")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in", "Makefile", "constraints.txt")


def neutral() -> dict[str, str]:
    """The environment without what would make an import work by chance."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))}


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command; a failure shows all it said."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=neutral(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{command} in {cwd}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_sources(target: Path) -> Path:
    """A copy of the checkout without its git folder, runs and caches; links stay links."""
    target.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=skip)
    for name in FILES:
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)
    return target


def build(tree: Path, kind: str, out: Path) -> Path:
    """Call the build backend itself ('wheel' or 'sdist'): no isolation, so no network."""
    code = f"import setuptools.build_meta as b; b.build_{kind}({str(out)!r})"
    out.mkdir(exist_ok=True)
    run(sys.executable, "-c", code, cwd=tree)
    (built,) = out.iterdir()
    return built


@dataclass(frozen=True)
class Built:
    """What was built, and from what."""

    tree: Path
    wheel: Path
    sdist: Path
    wheel_of_sdist: Path

    def names(self, archive: Path) -> list[str]:
        """File names in an archive, sorted; an sdist's without its leading folder."""
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as opened:
                return sorted(opened.namelist())
        with tarfile.open(archive) as packed:
            return sorted(m.name.split("/", 1)[1] for m in packed.getmembers() if m.isfile())


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    tree = copy_sources(folder / "tree")
    sdist = build(tree, "sdist", folder / "sdist")
    wheel = build(tree, "wheel", folder / "wheel")
    run("tar", "-xzf", sdist, "-C", folder, cwd=folder)  # Python before 3.11.4 cannot filter what it extracts
    (unpacked,) = folder.glob("fedimb-*")
    return Built(tree, wheel, sdist, build(unpacked, "wheel", folder / "again"))


def throwaway(folder: Path) -> Path:
    """A virtual environment with nothing of its own that sees the running one's packages; returns its python.

    The packages are seen through a path file, whose folder's own path files are not read: an editable fedimb
    in the running environment stays unseen.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    inside = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (inside / "running.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, *what: str | Path) -> None:
    """pip, offline. ``--ignore-installed`` because fedimb may be seen through the path file and must stay there."""
    flags = ("--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed", "--no-compile", "-q")
    run(python, "-m", "pip", "install", *flags, *what, cwd=python.parent)
