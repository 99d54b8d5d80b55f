"""What mkdocs calls: pages made from code are added, links rewritten, headings numbered as GitHub numbers them."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from website import api, command_line, links, notebooks, parts, results, settings  # noqa: E402

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ADOPTED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "experiments/README.md")
SOURCES = ("README.src.md", "page.md")
"""What pages of experiments are made from; not pages themselves."""
_made: dict[str, str] = {}
_origin: dict[str, str] = {}
"""Address of a page -> its path in the repository, of pages that have one."""


def adopted() -> list[str]:
    """Pages outside docs/ that belong to the site."""
    found = [page for page in ROOT.glob("experiments/*/*.md") if page.name not in SOURCES]
    return [*ADOPTED, *sorted(page.relative_to(ROOT).as_posix() for page in found)]


def made() -> dict[str, str]:
    """Address -> Markdown of every page made from code, data or the parser."""
    found = api.pages() | command_line.pages() | parts.pages() | settings.pages() | results.pages()
    return found | notebooks.pages()


def expanded(nav: Any, addresses: list[str]) -> Any:
    """The nav with every address that ends in / replaced by the pages there."""
    if isinstance(nav, list):
        return [expanded(entry, addresses) for entry in nav]
    if isinstance(nav, dict):
        return {title: expanded(entry, addresses) for title, entry in nav.items()}
    if isinstance(nav, str) and nav.endswith("/"):
        return [page for page in addresses if page.startswith(nav)]
    return nav


def on_config(config: "MkDocsConfig") -> "MkDocsConfig":
    """Make the pages, and put them into the nav."""
    os.environ.setdefault("COLUMNS", "100")
    _made.clear()
    _made.update(made())
    addresses = [*_made, *map(links.address, adopted())]
    config.nav = expanded(config.nav, addresses)
    return config


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add pages made from code, pages from outside docs/, and the files that pages link to."""
    from mkdocs.structure.files import File

    _origin.clear()
    _origin.update({links.address(path): path for path in adopted()})
    texts = []
    for file in files.documentation_pages():
        _origin[file.src_uri] = f"docs/{file.src_uri}"
        texts.append((_origin[file.src_uri], file.content_string))
    for path in adopted():
        text = (ROOT / path).read_text(encoding="utf-8")
        texts.append((path, text))
        files.append(File.generated(config, links.address(path), content=text))
    for address, text in _made.items():
        files.append(File.generated(config, address, content=text))
    wanted = links.linked(texts) | results.files()
    for path in sorted(wanted):
        address = links.address(path)
        if not address.endswith(".md") and files.get_file_from_path(address) is None:
            files.append(File.generated(config, address, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: "Page", **_: object) -> str:
    """Links as they are on the site."""
    origin = _origin.get(page.file.src_uri)
    return markdown if origin is None else links.rewritten(markdown, origin)
