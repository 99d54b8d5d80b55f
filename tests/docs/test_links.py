"""Every page is listed in docs/index.md, once; every relative link leads somewhere; pages named in code exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "experiments" / "README.md",
        *ROOT.glob("experiments/*/README.md"),
    ]
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """A page without its code blocks and code spans: what looks like a link there is none."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def dead(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere in this repository; addresses elsewhere are not asked."""
    wrong = []
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        other = page if not name else page.parent / name
        inside = other.resolve().is_relative_to(ROOT)
        if not inside or not other.exists() or (anchor and anchor not in anchors(other.read_text(encoding="utf-8"))):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_is_dead(page: Path) -> None:
    assert dead(page, page.read_text(encoding="utf-8")) == []


def test_the_index_lists_every_page_once() -> None:
    index = ROOT / "docs" / "index.md"
    rows = re.findall(r"^\| \[[^\]]+\]\(([^)]+)\) \| \S", index.read_text(encoding="utf-8"), re.MULTILINE)
    pages = [page.relative_to(index.parent).as_posix() for page in (ROOT / "docs").rglob("*.md") if page != index]
    assert sorted(rows) == sorted(pages)


def test_the_experiments_page_lists_every_folder_once() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(\1\) \|", (ROOT / "experiments" / "README.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(page.parent.name for page in ROOT.glob("experiments/*/README.md"))


def test_every_page_named_in_code_settings_and_help_exists() -> None:
    named: dict[str, str] = {}
    for folder in ("fedimb", "strategies", "clients", "configs", "experiments", "docs"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".yaml", ".tmpl", ".md", ".toml", ".html") and file.is_file():
                text = file.read_text(encoding="utf-8")
                named |= {page: file.as_posix() for page in re.findall(r"\bdocs/[\w-]+\.md", text)}
    named |= dict.fromkeys(re.findall(r"\bdocs/[\w-]+\.md", (ROOT / "README.md").read_text()), "README.md")
    assert named
    assert not {page: file for page, file in named.items() if not (ROOT / page).is_file()}


def test_dead_links_are_found() -> None:
    page = ROOT / "docs" / "index.md"
    text = "[a](nothing.md) [b](data.md) [c](data.md#no-such-heading) [d](https://flower.ai) ![e](no.svg) `[f](x.md)`"
    assert dead(page, text) == ["nothing.md", "data.md#no-such-heading", "no.svg"]
    assert dead(page, "[a](../../elsewhere.md)") == ["../../elsewhere.md"]
