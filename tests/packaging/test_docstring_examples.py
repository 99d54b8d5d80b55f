"""The examples in docstrings run, and say what they say: each file that has some is found and tested by itself."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
from source_imports import module_of, sources

import fedimb

PROMPT = re.compile(r"^ *>>> ", re.MULTILINE)
FILES = [file for file in sources("fedimb", "strategies", "clients") if PROMPT.search(file.read_text(encoding="utf-8"))]


def failures(module: object, said: list[str]) -> doctest.TestResults:
    """Run a module's examples; what went wrong is added to ``said``."""
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in finder.find(module, extraglobs={"fedimb": fedimb}):
        runner.run(test, out=said.append)
    return runner.summarize(verbose=False)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_the_examples_of_a_module_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = file.read_text(encoding="utf-8")
    assert "+SKIP" not in text, "an example that is skipped promises what nobody checks"
    said: list[str] = []
    result = failures(importlib.import_module(module_of(file)), said)
    assert not result.failed, "\n".join(said)
    assert result.attempted == len(PROMPT.findall(text)), "an example stands where doctest does not look for it"


def test_there_are_examples() -> None:
    assert len(FILES) >= 20


def test_a_wrong_example_is_found() -> None:
    module = type(doctest)("planted")
    module.__doc__ = ">>> 1 + 1\n3\n"
    said: list[str] = []
    assert failures(module, said).failed == 1
    assert "Expected:" in "".join(said)
