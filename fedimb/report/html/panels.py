"""Pictures a method leaves in ``artifacts/panels/`` of its run folder, for the report.

``<name>.json`` ``{"title": ..., "caption": ...}`` with a picture ``<name>.svg`` or ``<name>.png`` beside it, or with
the figures of one that is drawn here (`fedimb.serverapp.panels`). They stand in the page as images, so that nothing
inside one can run or be fetched.
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedimb.report.kept import kept_picture
from fedimb.report.phases import phases_picture
from fedimb.report.temperature import tau_picture
from fedimb.study.results import Result

LARGEST = 150_000
TOGETHER = 300_000
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class Panel:
    """A method's picture: its run, title and caption, and a ``data:`` URL, or why it was left out."""

    run: str
    title: str
    caption: str
    source: str = ""
    left_out: str = ""


def panels(results: Iterable[Result]) -> list[Panel]:
    """The panels of the first finished seed of each setting and row; a folder shared by several rows counts once.

    A file above 150 kB, or one that would bring the page's panels above 300 kB, is named and left out.
    """
    found: list[Panel] = []
    seen: set[Path] = set()
    rows: set[tuple[str, str]] = set()
    spent = 0
    for result in sorted(results, key=lambda r: r.seed):
        row = (result.setting, result.label)
        if result.status != "finished" or result.folder is None or row in rows:
            continue
        rows.add(row)
        folder = Path(str(result.folder))
        if folder in seen:
            continue
        seen.add(folder)
        run = f"{result.label}, {result.setting}, seed {result.seed}"
        for file in sorted(folder.glob("artifacts/panels/*")):
            drawn = _drawn(file)
            if drawn is not None or (file.suffix in _TYPES and file.is_file()):
                panel = _read(file, run, TOGETHER - spent, drawn)
                spent += len(panel.source)
                found.append(panel)
    return found


def _drawn(file: Path) -> bytes | None:
    """SVG drawn from the figures of a panel without a picture; None if it has one, or there is nothing to draw."""
    if file.suffix != ".json" or any(file.with_suffix(suffix).exists() for suffix in _TYPES):
        return None
    words = _words(file)
    for draw in (tau_picture, phases_picture):
        if (drawn := draw(words)) is not None:
            return drawn
    kept, held, names = words.get("kept"), words.get("held"), words.get("class_names")
    if not (isinstance(kept, list) and isinstance(held, list) and isinstance(names, list)):
        return None
    if not len(kept) == len(held) == len(names) or not names:
        return None
    return kept_picture(np.array(kept, np.int64), np.array(held, np.int64), [str(name) for name in names])


def _read(file: Path, run: str, room: int, drawn: bytes | None) -> Panel:
    words = _words(file.with_suffix(".json"))
    title = str(words.get("title") or file.stem.replace("_", " "))
    caption = str(words.get("caption") or "")
    suffix, content = (file.suffix, file.read_bytes()) if drawn is None else (".svg", drawn)
    size = len(content)
    if size > LARGEST:
        return Panel(run, title, caption, left_out=f"{file.name} has {size:,} bytes, more than {LARGEST:,}")
    source = f"data:{_TYPES[suffix]};base64,{base64.b64encode(content).decode()}"
    if len(source) > room:
        return Panel(
            run, title, caption, left_out=f"{file.name}: the panels before it fill the page's {TOGETHER:,} bytes"
        )
    return Panel(run, title, caption, source)


def _words(file: Path) -> dict[str, object]:
    try:
        words = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a picture without text is still shown
        return {}
    return words if isinstance(words, dict) else {}
