"""What was found at a path."""

from dataclasses import dataclass, field
from typing import Any

from fedimb.plain import Settings


@dataclass
class Found:
    """How to read what is at a path.

    Attributes:
        layout: what it is, in words.
        source: settings of the source, ``{name: ..., ...}``.
        unsure: what was guessed and may be wrong, one line each, with the setting that decides it.
        images: whether rows are pictures.
    """

    layout: str
    source: Settings
    unsure: list[str] = field(default_factory=list)
    images: bool = False

    def choose(self, setting: str, value: Any, doubt: str = "") -> None:
        """Set a setting of the source; ``doubt``: why it may be wrong."""
        self.source[setting] = value
        if doubt:
            self.unsure.append(f"{setting}={value}: {doubt}")
