"""Aligned plain text for any terminal or log file: column widths, and only characters that the stream can encode."""

import math
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import TextIO

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
WIDTH = 99  # below 100 columns, so that a row fits on one line of most terminals


def writable(text: str, stream: TextIO | None) -> bool:
    """Whether the stream (default: standard output) can encode these characters."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def plain(name: object, stream: TextIO | None) -> str:
    """A label or class name on one line, with characters the stream cannot encode replaced by ``?``."""
    one_line = " ".join(str(name).split())
    return "".join(c if c.isprintable() and writable(c, stream) else "?" for c in one_line)


def width(text: str) -> int:
    """Columns a terminal gives the text: wide East Asian characters take two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, columns: int, right: bool = False) -> str:
    """The text padded with spaces to this many terminal columns."""
    space = " " * max(0, columns - width(text))
    return space + text if right else text + space


def score(value: float) -> str:
    """A share with three decimals; ``n/a`` if it is undefined."""
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def chance(value: float) -> str:
    """A p-value with three decimals and no leading 0; ``<.001`` below that, ``n/a`` if it is undefined."""
    if math.isnan(value):
        return "n/a"
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def shorten(text: str, columns: int) -> str:
    """The text cut to this many columns, with ``..`` where it was cut."""
    if width(text) <= columns:
        return text
    while width(text) > columns - 2:
        text = text[:-1]
    return text + ".."


def aligned(rows: Sequence[Sequence[str]], left: int = 1, gap: str = "  ") -> list[str]:
    """Lines with columns as wide as their widest cell; the first ``left`` are left-aligned, the rest right-aligned."""
    widths = [max(width(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [pad(cell, w, right=at >= left) for at, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append(gap.join(cells).rstrip())
    return lines


def clean_text(text: object, most: int = 500) -> str:
    """A text from outside as one line: without control characters and marks that change the direction of writing, cut.

    Example:
        >>> clean_text("st-anna\\x1b[2J\\nOK")
        'st-anna [2J OK'
    """
    plain = _CONTROL.sub(" ", str(text)[: 4 * most]).strip()
    return plain if len(plain) <= most else plain[: most - 3] + "..."
