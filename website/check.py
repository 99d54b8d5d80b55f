"""What must hold of the built site: no page asks another machine for anything, and every link leads somewhere.

python -m website.check build/site
"""

import posixpath
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ASKED = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
    "form": ("action",),
}
"""Attributes that a browser follows by itself, or sends to; a link that a reader clicks is none of them."""
NO_REQUEST = ("canonical", "next", "prev")
"""Kinds of <link> that are facts and not requests."""


class Page(HTMLParser):
    """What a page asks for, where its links lead, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.guarded = False
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect one tag's addresses."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.guarded |= given.get("http-equiv", "").lower() == "content-security-policy"
        self._style = tag == "style"
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if not (tag == "link" and given.get("rel") in NO_REQUEST):
            self.asked += [given[name] for name in ASKED.get(tag, ()) if name in given]

    def handle_data(self, data: str) -> None:
        """Collect what a style asks for."""
        if self._style:
            self.asked += addresses_of(data)


def addresses_of(css: str) -> list[str]:
    """What url() and @import of a style sheet name."""
    parts = css.replace("@import", "url(").split("url(")[1:]
    return [part.split(")")[0].split(";")[0].strip("'\" ") for part in parts]


def elsewhere(address: str) -> bool:
    """Whether an address is another machine's."""
    parts = urlsplit(address.strip())
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ftp", "ws", "wss")


def faults(site: Path) -> list[str]:
    """One line for each request to elsewhere, dead link, or page without the policy that forbids requests."""
    pages = {path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = []
    for name, page in sorted(pages.items()):
        found += [f"{name}: asks {address}" for address in page.asked if elsewhere(address)]
        if name.startswith("files/"):
            continue  # copied as they are, from experiments/
        if not page.guarded:
            found.append(f"{name}: has no Content-Security-Policy")
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or name == "404.html":
                continue
            folder = posixpath.dirname(name)
            target = posixpath.normpath(posixpath.join(folder, unquote(parts.path))) if parts.path else name
            if not (site / target).exists():
                found.append(f"{name}: the link {link} leads nowhere")
            elif (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors | {"__top"}
            ):
                found.append(f"{name}: the link {link} has no such anchor")
    for sheet in sorted(site.rglob("*.css")):
        asked = addresses_of(sheet.read_text(encoding="utf-8"))
        found += [f"{sheet.relative_to(site)}: asks {address}" for address in asked if elsewhere(address)]
    return found


def main() -> int:
    """Print every fault; exit code 1 if there is one."""
    site = Path(sys.argv[1])
    wrong = faults(site)
    print("\n".join(wrong) or f"{len(list(site.rglob('*.html')))} pages: no request to elsewhere, no dead link")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
