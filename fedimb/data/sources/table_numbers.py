"""How numbers are written in a text table: decimal and thousands signs, and marks of missing values."""

import re
from dataclasses import dataclass
from functools import cached_property

from fedimb.data.sources.table_file import number
from fedimb.errors import ConfigError

MARKS = frozenset(("nan", "n/a", "n.a.", "#n/a", "<na>", "null", "none", "nil", ".", "-", "--"))
"""Texts, in lower case, that programs write for a missing value: read as one beside numbers, and asked about."""
THOUSANDS = (".", ",", " ", "'", "\u2019", "\u00a0", "\u202f")

_USUAL = ((".", None), (",", None), (",", "."), (".", ","), (".", "'"), (".", " "), (",", " "))


def settings(decimal: str, thousands: str | None) -> str:
    """The settings as they are typed: the quotes outside are the shell's."""
    given = {"decimal": decimal, "thousands": thousands}
    typed = {name: f"'\"{sign}\"'" if sign == "'" else f"\"'{sign}'\"" for name, sign in given.items() if sign}
    return " ".join(f"data.source.{name}={sign}" for name, sign in typed.items())


def is_mark(text: str) -> bool:
    """Whether a field that is not one of `fedimb.data.sources.table_features.MISSING` looks like a missing value."""
    return text.lower() in MARKS


@dataclass(frozen=True)
class NumberFormat:
    """Reads numbers as they are written in a file.

    Args:
        decimal: "." or ",".
        thousands: sign between groups of three digits, another one than ``decimal``; None: there is none.

    Raises:
        ConfigError: another sign, or twice the same.

    Example:
        >>> NumberFormat(",", ".")("7.111,5")
        7111.5
    """

    decimal: str = "."
    thousands: str | None = None

    def __post_init__(self) -> None:
        if self.decimal not in (".", ","):
            raise ConfigError(f"source 'tabular_csv': decimal={self.decimal!r}: give '.' or ','")
        if self.thousands is not None and self.thousands not in THOUSANDS:
            raise ConfigError(
                f"source 'tabular_csv': thousands={self.thousands!r}: give '.', ',', a space or an apostrophe, or null"
            )
        if self.thousands == self.decimal:
            raise ConfigError(f"source 'tabular_csv': '{self.decimal}' is given as decimal and as thousands; give one")

    @property
    def plain(self) -> bool:
        """Whether numbers are written as in Python."""
        return self.decimal == "." and self.thousands is None

    def __call__(self, text: str) -> float | None:
        """The number in ``text``, or None: a thousands sign that does not part groups of three makes it none."""
        if self.plain:
            return number(text)
        if self.thousands is not None and self.thousands in text:
            if not self._grouped.fullmatch(text):
                return None
            text = text.replace(self.thousands, "")
        if self.decimal == ",":
            if "." in text:
                return None
            text = text.replace(",", ".")
        return number(text)

    def normal(self, text: str) -> str:
        """A number as Python writes it; any other text as it is."""
        if self.plain or self(text) is None:
            return text
        return text.replace(self.thousands or "\0", "").replace(",", ".")

    def hint(self, text: str) -> str:
        """What to set if ``text`` is a number in another format; "" if it is not."""
        for decimal, thousands in sorted(_USUAL, key=lambda signs: signs[0] != self.decimal):
            other = NumberFormat(decimal, thousands)
            if other != self and other(text) is not None:
                return f"; if it is a number, give {settings(decimal, thousands)}"
        return ""

    @cached_property
    def _grouped(self) -> re.Pattern[str]:
        sign = re.escape(self.thousands or "")
        return re.compile(rf"[+-]?\d{{1,3}}({sign}\d{{3}})+({re.escape(self.decimal)}\d*)?([eE][+-]?\d+)?")
