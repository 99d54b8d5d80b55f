"""Links of a page between the repository, where it is read as Markdown, and the site, which has other addresses."""

import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(\))")
BARE = re.compile(r"\[[\w/-]+\.md\]\($")
"""The beginning of a link whose text is a page's path."""
ELSEWHERE = re.compile(r"[a-z][a-z+.-]*:|#")
PLAIN = (".csv", ".txt", ".json", ".svg", ".png", ".html")
"""Files that a browser shows as they are; others are copied as text."""


def in_prose(text: str, change: Callable[[str], str]) -> str:
    """Change what is outside code blocks and code spans."""
    parts = CODE.split(text)
    parts[::2] = [change(part) for part in parts[::2]]
    return "".join(parts)


def targets(text: str) -> list[str]:
    """Relative links of a page, outside its code."""
    prose = CODE.sub(" ", text)
    return [target for _, target, _ in LINK.findall(prose) if not ELSEWHERE.match(target)]


def resolved(page: str, target: str) -> tuple[str, str]:
    """(path in the repository, anchor with its #) of a link on a page, both relative to the root.

    Raises:
        ValueError: the link leaves the repository, nothing is there, or a folder without a page.
    """
    name, sharp, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), name)) if name else page
    if path.startswith("..") or not (ROOT / path).exists():
        raise ValueError(f"{page}: the link {target} leads nowhere")
    if (ROOT / path).is_dir() and not (ROOT / path / "README.md").is_file():
        raise ValueError(f"{page}: the link {target} leads to a folder without a README.md: link to one of its files")
    return path, sharp + anchor


def address(path: str) -> str:
    """Where a file or folder of the repository is on the site.

    Example:
        >>> address("docs/data.md"), address("README.md"), address("experiments/demo"), address("fedimb/seeds.py")
        ('data.md', 'readme.md', 'experiments/demo/index.md', 'files/fedimb/seeds.py.txt')
    """
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        path = f"{path}/README.md"
    if path.endswith("/README.md"):
        return path.removesuffix("README.md") + "index.md"
    if path.endswith(".md"):
        return path.lower()
    return f"files/{path}" if path.endswith(PLAIN) else f"files/{path}.txt"


def title(path: str) -> str:
    """The heading of a page of the repository, without brackets that would end a link."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return re.sub(r"[\[\]]", "", found[1]) if found else path


def rewritten(text: str, page: str) -> str:
    """A page with its links as they have to be on the site.

    Args:
        text: Markdown.
        page: its path in the repository.
    """
    here = posixpath.dirname(address(page))

    def one(found: "re.Match[str]") -> str:
        before, target, after = found.groups()
        if ELSEWHERE.match(target):
            return found[0]
        path, anchor = resolved(page, target)
        if BARE.match(before) and not anchor:
            before = f"[{title(path)}]("
        return before + posixpath.relpath(address(path), here or ".") + anchor + after

    # [K][C] is a shape here; in Markdown it would be a link to a reference of that name.
    return in_prose(text, lambda prose: LINK.sub(one, prose).replace("][", "]\\["))


def linked(pages: Iterable[tuple[str, str]]) -> set[str]:
    """Paths in the repository that pages, given as (path, text), link to."""
    return {resolved(page, target)[0] for page, text in pages for target in targets(text)}
