"""Where fedimb cannot work every verb says so in one line: no file locks (Windows), links that came out as files."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedimb.supported import LINKED, refusal

ROOT = Path(__file__).parents[1]
EVERY_VERB = """
import contextlib, io, sys
{before}
from fedimb.cli.main import VERBS, main
for verb in (*VERBS, "run rounds=3 --json"):
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        code = main(verb.split())
    print(verb.split()[0], code, len(said.getvalue().splitlines()), said.getvalue().strip(), sep="|")
import fedimb
try:
    fedimb.run
except Exception as error:
    print(type(error).__name__, 1, 1, f"fedimb: {{error}}", sep="|")
try:
    main(["--version"])
except SystemExit as stop:
    print("version", stop.code, file=sys.stderr)
"""


def said_by_every_verb(before: str, path: Path) -> tuple[list[list[str]], str]:
    """(fields of each verb's answer, standard error) of a child process with the package below ``path``."""
    done = subprocess.run(
        [sys.executable, "-c", EVERY_VERB.format(before=before)],
        cwd=path,
        env={"PYTHONPATH": str(path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 3]
    return lines, done.stderr


@pytest.fixture(scope="module")
def without_links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package as a checkout with core.symlinks=false has it."""
    folder = tmp_path_factory.mktemp("checkout")
    skip = shutil.ignore_patterns("__pycache__", *LINKED)
    shutil.copytree(ROOT / "fedimb", folder / "fedimb", ignore=skip)
    for name in LINKED:
        (folder / "fedimb" / name).write_text(f"../{name}")
    return folder


def test_this_system_is_supported() -> None:
    assert refusal() is None


def test_without_file_locks_every_verb_is_refused_in_one_line() -> None:
    answers, stderr = said_by_every_verb("sys.modules['fcntl'] = None  # an import of it fails", ROOT)
    assert len(answers) > 20, stderr
    for verb, code, lines, said in answers:
        assert (code, lines) == ("1", "1"), (verb, said)
        assert "Linux or macOS" in said, (verb, said)
        assert "WSL 2" in said, (verb, said)
    assert answers[-1][0] == "UnsupportedSystem"
    assert stderr.strip() == "version 0"


def test_with_files_in_place_of_links_every_verb_is_refused_in_one_line(without_links: Path) -> None:
    answers, stderr = said_by_every_verb("", without_links)
    assert len(answers) > 20, stderr
    for verb, code, lines, said in answers:
        assert (code, lines) == ("1", "1"), (verb, said)
        assert "lacks strategies, clients, configs" in said, (verb, said)
        assert "core.symlinks true" in said, (verb, said)


def test_one_missing_folder_is_named(without_links: Path, tmp_path: Path) -> None:
    shutil.copytree(without_links / "fedimb", tmp_path / "fedimb", ignore=shutil.ignore_patterns("[a-z]*.py", "cli"))
    for name in ("strategies", "configs"):
        (tmp_path / "fedimb" / name).unlink()
        (tmp_path / "fedimb" / name).mkdir()
    assert "lacks clients:" in str(refusal(tmp_path / "fedimb"))
