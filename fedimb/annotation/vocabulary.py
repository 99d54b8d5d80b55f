"""The answers a reader can give: a class's name, its code, or "cannot judge"."""

import unicodedata
from collections.abc import Sequence

from fedimb.annotation.tables import shown_cell, without_apostrophe
from fedimb.errors import ConfigError, nearest

CANNOT_JUDGE = -2
"""The answer "cannot judge"."""
CANNOT_WORDS = "cannot judge"


class Vocabulary:
    """Parses and formats answers.

    A class also has a code, ``c-03``, because spreadsheets change some names: ``1-2`` into a date, ``+ve`` into a
    broken formula.

    Args:
        class_names: names by class id.

    Raises:
        ConfigError: a class is named "cannot judge", or two names differ only in case and spaces.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        width = max(2, len(str(len(self.class_names) - 1)))
        self.codes = tuple(f"c-{c:0{width}d}" for c in range(len(self.class_names)))
        plain: dict[str, int] = {}
        for c, name in enumerate(self.class_names):
            if _plain(name) in (CANNOT_WORDS, ""):
                raise ConfigError(f"class {c} is called '{name}', which a worklist cannot offer as a class; rename it")
            if _plain(name) in plain:
                other = self.class_names[plain[_plain(name)]]
                raise ConfigError(f"classes '{other}' and '{name}' look the same to a reader; rename one")
            plain[_plain(name)] = c
        self._plain = {code: c for c, code in enumerate(self.codes)} | plain | {CANNOT_WORDS: CANNOT_JUDGE}

    def show(self, label: int) -> str:
        """The name of a class id or of `CANNOT_JUDGE`."""
        return CANNOT_WORDS if label == CANNOT_JUDGE else self.class_names[label]

    def read(self, text: str) -> int | None:
        """Parse an answer: a class id, `CANNOT_JUDGE`, or None for an empty cell.

        Raises:
            ValueError: not a valid answer; names the nearest one.
        """
        bare = text.strip()
        if not bare:
            return None
        for tried in (bare, without_apostrophe(bare), bare.removesuffix(".0")):
            if (found := self._plain.get(_plain(tried))) is not None:
                return found
        shown = shown_cell(bare)
        if bare.startswith("#"):
            raise ValueError(
                f"'{shown}' is what a spreadsheet makes of a formula; write the class's code instead ({self.legend()})"
            )
        raise ValueError(
            f"'{shown}' is not a class.{nearest(bare, [*self.class_names, CANNOT_WORDS])} "
            "If the spreadsheet changes a name, write the class's code instead, e.g. "
            f"{self.codes[0]} for '{self.class_names[0]}'"
        )

    def legend(self) -> str:
        """All answers, e.g. ``benign (c-00), malignant (c-01), cannot judge``."""
        names = [f"{name} ({code})" for name, code in zip(self.class_names, self.codes, strict=True)]
        return ", ".join([*names, CANNOT_WORDS])


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).replace("_", " ").split()).casefold()
