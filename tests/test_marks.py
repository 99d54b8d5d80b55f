"""Marks stand in the files they mark: tests/conftest.py passes over files without the one that is asked for."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent
MARK = re.compile(r"mark\.(slow|alone)")


def test_no_support_file_marks_tests() -> None:
    others = [file for file in HERE.rglob("*.py") if not file.name.startswith("test_")]
    assert len(others) > 30
    assert [file.name for file in others if MARK.search(file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("asked", "text", "ignored"),
    [
        ("slow", "@pytest.mark.slow\n", False),
        ("slow", "@pytest.mark.alone\n", True),
        ("alone and not slow", "@pytest.mark.alone\n", False),
        ("alone and not slow", "@pytest.mark.slow\n", True),
        ("not slow and not alone", "", False),
        ("alone or slow", "@pytest.mark.slow\n", False),
        ("slow and x or alone", "@pytest.mark.alone\n", False),
        ("", "", False),
    ],
)
def test_only_files_without_the_mark_are_passed_over(
    asked: str, text: str, ignored: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (found,) = (
        plugin.pytest_ignore_collect
        for plugin in request.config.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", None) == str(HERE / "conftest.py")
    )
    file = tmp_path / "test_one.py"
    file.write_text(text)
    config = SimpleNamespace(option=SimpleNamespace(markexpr=asked))
    assert bool(found(file, config)) == ignored
    assert found(tmp_path, config) is None
