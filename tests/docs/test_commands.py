"""Commands in pages: the parsers accept each; settings of runs compose; the tutorials run as they are written."""

import contextlib
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from fedimb.config.compose import compose
from fedimb.errors import FedimbError

main = importlib.import_module("fedimb.cli.main")  # the package's attribute of that name is the function
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("experiments/*/README.md"))]
TUTORIALS = [*sorted((ROOT / "docs" / "tutorials").glob("*.md")), ROOT / "docs" / "bring-your-own.md"]
BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"\.\.\.|[|<>]| \[-|\$\w|KIND|NAME|RUN\b|STUDY")

MAKES_ITS_PART = re.compile(r"docs/(add-an?-[a-z-]+|entry-points|bring-your-own|tutorials/your-own-method)\.md")
"""Pages whose runs use a part that the page itself makes; their own tests run them."""


def commands(text: str) -> list[str]:
    """The lines of code blocks, fenced or indented, that call fedimb; a line that ends in a backslash goes on."""
    code = [block[2] for block in BLOCK.findall(text) if block[0] in ("", "sh", "bash", "console", "text")]
    code += re.findall(r"(?:(?<=\n\n)|\A)((?: {4}.*\n)+)", BLOCK.sub("", text))
    lines = re.sub(r"\s*\\\n\s*", " ", "\n".join(code)).splitlines()
    found = []
    for line in lines:
        line = re.sub(r"^(\$ |[A-Z_]+=\S+ )*", "", line.strip())
        if line.startswith("fedimb "):
            found.append(line)
    return found


def words_of(command: str) -> list[str] | None:
    """The words after ``fedimb``; None for a line that shows a form and not a command, or an output."""
    if command.startswith("fedimb:") or PLACEHOLDER.search(command.split(" #")[0].split("  ")[0]):
        return None
    command = re.split(r"\s&&\s|\s#|;\s|   +", command)[0]  # what follows explains it
    try:
        words = shlex.split(command)[1:]
    except ValueError:
        return None
    return words or None


EVERY = sorted(
    {(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in commands(page.read_text("utf-8"))}
)


def test_every_command_of_every_page_is_one_that_the_parsers_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "_parser", cache(main._parser))  # one per verb, not one per command
    wrong, seen = [], 0
    for page, line in EVERY:
        words = words_of(line)
        if words is None or {"--help", "--version"} & set(words):
            continue
        seen += 1
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                main._parse(words)
        except SystemExit:
            wrong.append(f"{page}: {line}: {said.getvalue().strip().splitlines()[-1:]}")
    assert seen > 150
    assert wrong == []


def test_a_command_that_no_parser_knows_is_noticed() -> None:
    text = "Text\n\n    fedimb run loss=ce   # why\n    FEDIMB_DATA_DIR=x fedimb report \\\n        runs/a\n"
    text += "\n```sh\nfedimb list\n```\n"
    assert commands(text) == ["fedimb list", "fedimb run loss=ce   # why", "fedimb report runs/a"]
    assert words_of("fedimb run loss=ce   # why") == ["run", "loss=ce"]
    with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        main._parse(["report", "runs/a", "--no-such-option"])


@pytest.mark.slow
def test_the_settings_of_every_run_in_a_page_compose() -> None:
    wrong, seen = [], 0
    for page, line in EVERY:
        words = words_of(line)
        if words is None or words[0] != "run" or any(word.startswith("-") for word in words):
            continue
        if MAKES_ITS_PART.fullmatch(page):
            continue
        seen += 1
        try:
            compose(words[1:])
        except FedimbError as error:
            wrong.append(f"{page}: {line}: {error}")
    assert seen > 30
    (shown,) = wrong  # the README shows how a wrong key is refused, with this line below it
    assert shown == "README.md: fedimb run lokal.epochs=3: no setting 'lokal.epochs'. Did you mean 'local.epochs'?"


def run_tutorial(page: Path, folder: Path) -> None:
    """Write a page's titled blocks into a folder, and run the others in order.

    Python in the page's own process is a child; `pip install` goes to a folder of the test.
    """
    site = folder / "site-packages"
    path = os.pathsep.join([str(ROOT), str(site)])
    python = shlex.quote(sys.executable)
    tools = f"""
        pip() {{ shift; {python} -m pip install -q --no-deps --target {shlex.quote(str(site))} "$@"; }}
        fedimb() {{ {python} -m fedimb "$@"; }}
        python() {{ {python} "$@"; }}
    """
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    for language, title, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        if title:
            (folder / title).write_text(code, encoding="utf-8")
            continue
        words = {
            "sh": ["bash", "-euo", "pipefail", "-c", tools + code],
            "python": [sys.executable, "-c", code],
        }.get(language)
        if words is not None:
            done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=550)
            assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_as_it_is_written(page: Path, tmp_path: Path) -> None:
    run_tutorial(page, tmp_path)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "explanation").glob("*.md")), ids=lambda page: page.stem)
def test_an_explanations_code_runs(page: Path) -> None:
    for language, _, code in BLOCK.findall(page.read_text(encoding="utf-8")):
        assert language == "python"
        exec(compile(code, page.name, "exec"), {})
