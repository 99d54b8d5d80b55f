"""The package that docs/add-a-strategy.md builds, written from the page's own code blocks and installed by pip."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from warm import CLI, WarmPython

PAGE = Path(__file__).parents[2] / "docs" / "add-a-strategy.md"
Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Settings of a run that takes a second."""
    return [
        "strategy=toy",
        "tracking=none",
        "data=synthetic_table",
        "data.source.rows=1500",
        "clients.count=4",
        "rounds=3",
        "local.epochs=1",
        "evaluation.bootstrap=0",
    ]


@pytest.fixture(scope="session")
def page_files() -> dict[str, str]:
    """Content by file name: every fenced block of the page that follows a line with nothing but a file name."""
    blocks = re.findall(r"^`([^`\n]+)`\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(dict(blocks)), "a file is shown twice"
    return dict(blocks)


@pytest.fixture(scope="session")
def installed(page_files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder the toy package was installed into, offline, by ``pip install --target``."""
    source, target = tmp_path_factory.mktemp("toy-method"), tmp_path_factory.mktemp("site-packages")
    empty = {"toy_method/__init__.py": "", "toy_method/configs/__init__.py": ""}
    for name, text in (page_files | empty).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--disable-pip-version-check", "--quiet"]
    words = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def leaky(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same installation, but for a client half that also sends a record its contract does not declare."""
    target = tmp_path_factory.mktemp("leaky") / "site-packages"
    shutil.copytree(installed, target)
    client = target / "toy_method" / "client.py"
    honest = 'return RecordDict({TOY: MetricRecord({"rows": int(own["rows"]), '
    assert client.read_text().count(honest) == 1
    leak = 'return RecordDict({"x.names": ConfigRecord({"first": "Ada"}), ' + honest.removeprefix("return RecordDict({")
    client.write_text(client.read_text().replace(honest, leak))
    return target


@pytest.fixture(scope="session")
def pythons() -> Iterator[Callable[[Path], WarmPython]]:
    """Pythons by installation folder, started when first asked for."""
    started: dict[Path, WarmPython] = {}

    def python(site: Path) -> WarmPython:
        if site not in started:
            started[site] = WarmPython(site)
        return started[site]

    yield python
    for one in started.values():
        one.close()


@pytest.fixture
def shell(pythons: Callable[[Path], WarmPython], tmp_path: Path) -> Shell:
    """Run Python in a folder of its own, with one more installation folder: ``shell(site, code, ...)``."""
    return lambda site, *words: pythons(site)(tmp_path, *words)


@pytest.fixture
def fedimb(shell: Shell) -> Shell:
    """Run the ``fedimb`` command: ``fedimb(site, "run", "strategy=toy")``."""
    return lambda site, *words: shell(site, CLI, *words)
