"""The pages that say how to add a part of each kind: their code is what ``fedimb new`` writes, or is run here."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from new_parts import NAMES, SMALL, TABLE, forget, pretend_installed

import fedimb
from fedimb import registry
from fedimb.cli import new
from fedimb.config.catalogue import Catalogue
from fedimb.rundir.folder import RunFolder

DOCS = Path(__file__).parents[2] / "docs"
ENTRY_POINTS = (DOCS / "entry-points.md").read_text()
HAS_A_PAGE = [kind for kind in NAMES if kind not in ("strategy", "optimizer")]  # theirs is add-a-strategy.md


def blocks(text: str) -> dict[str, str]:
    """Content by file name: every fenced block that follows a line with nothing but a file name."""
    found = re.findall(r"^`([^`\n]+)`\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == len(dict(found)), "a file is shown twice"
    return dict(found)


@pytest.mark.parametrize("kind", HAS_A_PAGE)
def test_a_page_shows_what_fedimb_new_writes(kind):
    page = (DOCS / new.KINDS[kind].page).read_text()
    written = new.pages(new.KINDS[kind], NAMES[kind])
    assert blocks(page) == {file: text for file, text in written.items() if text and file != "README.md"}
    words = new.KINDS[kind].words(NAMES[kind])
    commands = (
        f"fedimb new {kind} {NAMES[kind]}",
        f"pip install --no-build-isolation -e {words['project']}",
        words["run"],
        f"cd {words['project']} && python -m pytest",
    )
    for command in commands:
        assert f"\n    {command}\n" in page


@pytest.mark.parametrize("kind", new.KINDS)
def test_the_readme_names_its_page_and_the_commands(kind):
    text = new.pages(new.KINDS[kind], "mine")["README.md"]
    words = new.KINDS[kind].words("mine")
    assert (DOCS / words["page"]).is_file()
    for part in (
        words["page"],
        "pip install --no-build-isolation -e .",
        f"fedimb list {words['plural']}",
        words["run"],
    ):
        assert part in text


def test_every_kind_of_part_is_in_the_table_with_its_yaml_group():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", ENTRY_POINTS, re.MULTILINE)
    assert sorted(row[0] for row in rows) == sorted(registry.KINDS)
    for kind, _, group, chosen, page in rows:
        folder = group.strip("`")
        shipped = Catalogue().options(folder) if folder != "none" else []
        # The group holds a YAML of that kind: each names one of its registered parts (a data group in source).
        assert bool(shipped) == (folder != "none"), kind
        assert kind == "source" or not set(shipped) - set(registry.names(kind)), kind
        assert "mine" in chosen or folder == "none"
        for target in re.findall(r"\]\(([^)]+)\)", page):
            assert (DOCS / target.partition("#")[0]).is_file(), target
    assert {kind.kind for kind in new.KINDS.values()} <= {row[0] for row in rows if row[4] != "below"}


@pytest.fixture
def more_parts(tmp_path, monkeypatch):
    """The package of the page on entry points, installed as far as Python can tell."""
    for name, text in (
        blocks(ENTRY_POINTS) | {"more_parts/__init__.py": "", "more_parts/configs/__init__.py": ""}
    ).items():
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / name).write_text(text)
    pretend_installed(tmp_path / "package")
    monkeypatch.syspath_prepend(tmp_path / "package")
    with registry.isolated():
        yield
    forget("more_parts")


def test_the_pages_own_tests_pass(more_parts):
    code: dict[str, Callable[[], None]] = {}
    exec(compile(blocks(ENTRY_POINTS)["tests/test_parts.py"], "test_parts.py", "exec"), code)
    tests = [test for name, test in code.items() if name.startswith("test_")]
    assert len(tests) == 4
    for test in tests:
        test()


def test_the_parts_of_the_page_run_by_the_command_it_gives(more_parts, tmp_path):
    command = ENTRY_POINTS.rpartition("\n    fedimb run ")[2]  # a shell's words, on several lines
    words = [word for word in shlex.split(command) if word != "\n"]
    result = fedimb.run(shlex.join([*SMALL, *TABLE, *words, f"output_dir={tmp_path}/runs"]))
    folder = RunFolder.open(result.folder)
    assert folder.status() == "finished"
    config = folder.read_json("config.json")
    for part in ("by_turns", "no_bias", "pull_to_zero", "jitter", "row_norm", "central"):
        assert f"'{part}'" in str(config)
        (kind,) = re.findall(rf'@register\("(\w+)", "{part}"', ENTRY_POINTS)
        assert registry.get(kind, part).factory.__module__ == "more_parts.parts"
    assert sorted({line["row"] for line in folder.metrics()}) == ["coreset_central", "coreset_central+no_bias"]
