"""The files a contributor looks for: valid, and saying what the code says."""

import re
from pathlib import Path

import yaml

import fedimb
from fedimb._moved import MOVED, RENAMED

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(text: str, heading: str) -> list[tuple[str, str]]:
    """The (first, second) cells in backticks of the table below a heading row."""
    table = text.split(f"| {heading}", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", table, re.MULTILINE)


def test_the_changelog_lists_every_moved_module_and_renamed_name_once() -> None:
    text = read("CHANGELOG.md")
    assert sorted(rows(text, "module in 0.1.0")) == sorted(MOVED.items())
    assert sorted(rows(text, "name in 0.1.0")) == sorted(RENAMED.items())


def test_the_changelog_has_a_section_for_this_version_and_one_for_what_is_not_released() -> None:
    titles = re.findall(r"^## \[([^\]]+)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert titles[0] == "Unreleased"
    assert fedimb.__version__ in titles


def test_the_citation_is_of_this_version_and_licence() -> None:
    cited = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors", "type"} <= cited.keys()
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == fedimb.__version__
    assert f'license = "{cited["license"]}"' in read("pyproject.toml")
    assert all(author.keys() & {"name", "family-names"} for author in cited["authors"])


def test_hooks_are_the_checks_of_make_lint_and_fetch_nothing() -> None:
    repos = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = repos[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    lint = read("Makefile").split("\nlint:", 1)[1].split("\n\n", 1)[0]
    wanted = [line.strip().replace("$(BIN)", ".venv/bin") for line in lint.splitlines()[1:]]
    asked = {hook["entry"].replace(" --fix", "") for hook in hooks}
    assert asked == {line.removesuffix(" .").replace(" --check", "") for line in wanted}


def test_contributing_names_the_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", read("Makefile"), re.MULTILINE))
    named = set(re.findall(r"^ +make ([a-z-]+)", read("CONTRIBUTING.md"), re.MULTILINE))
    assert {"install", "demo", "test", "test-slow", "lint", "format"} <= named <= targets


def test_contributing_has_a_paragraph_for_each_kind_of_part_with_its_folder() -> None:
    text = read("CONTRIBUTING.md")
    kinds = dict(re.findall(r"^\*\*An? ([a-z ]+)\.\*\* ((?:.+\n)+)", text, re.MULTILINE))
    assert {"loss", "sampler", "query rule", "aggregator", "source", "generator", "model", "method"} <= kinds.keys()
    for kind, paragraph in kinds.items():
        folders = re.findall(r"`(fedimb/[a-z_/]+/)`", paragraph)
        assert folders or kind == "method"
        assert all((ROOT / folder).is_dir() for folder in folders), kind
