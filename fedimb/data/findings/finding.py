"""One finding, and the table of all findings with their severity."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fedimb.errors import ConfigError, nearest

Severity = Literal["refuse", "ask", "note"]
"""``refuse``: it changes what the numbers mean. ``ask``: refused until accepted. ``note``: printed."""

KINDS: dict[str, tuple[Severity, str]] = {
    "picture_range": ("refuse", "pictures of float values beyond 1 that are not scaled"),
    "patient_on_two_sides": ("refuse", "a patient with rows on two sides of a split, or at two clients"),
    "minority_without_rows": ("refuse", "a class without training rows among the minority"),
    "sentinels": ("ask", "a value such as -9, 99, 999 or 9999 that stands apart from its column: a missing value"),
    "id_column": ("ask", "a feature column that numbers or names the rows or patients"),
    "label_column": ("ask", "a feature column each of whose values has one class only: the label, or made from it"),
    "decimal_signs": ("ask", "numbers such as 7.111 beside 769: a thousands sign that was read as a decimal point"),
    "missing_marks": (
        "ask",
        "marks such as NaN, N/A, null, None or . beside numbers, or as a class or site",
    ),
    "one_class_sites": ("ask", "a site whose rows are all of one class"),
    "constant_columns": ("note", "feature columns with one value in all rows"),
    "constant_pictures": ("note", "pictures of one value"),
    "constant_windows": ("note", "windows of signals in which a channel has one value"),
    "repeated_rows": ("note", "rows or pictures that are identical"),
    "rows_on_two_sides": (
        "note",
        "test or validation rows that are identical to a training row",
    ),
    "look_alike_names": ("note", "names of classes, sites, patients or categories that differ in spelling only"),
    "clients_beyond_rows": ("note", "more clients than can hold rows"),
    "official_test_unused": ("note", "a drawn test set where the source has one: its test rows are trained on"),
    "one_class_test": ("note", "a test set, a site's part of it or a client's validation rows of one class"),
}
"""Name of a finding -> (severity, what it means)."""

ACCEPTABLE = tuple(name for name, (severity, _) in KINDS.items() if severity != "refuse")
"""What `data.accept` may name."""


@dataclass(frozen=True)
class Finding:
    """Something in the data that may mean something else than it seems.

    Attributes:
        name: one of `KINDS`.
        place: where: a column, site, class or array, or a file.
        text: what was found and what to do, one line.
    """

    name: str
    place: str
    text: str

    @property
    def severity(self) -> Severity:
        """Of its kind."""
        return KINDS[self.name][0]

    @property
    def line(self) -> str:
        """Place and text, as printed after the severity."""
        return f"{self.place}: {self.text}"

    def facts(self) -> list[str]:
        """As plain values, for JSON."""
        return [self.name, self.place, self.text]

    @staticmethod
    def from_facts(facts: Sequence[str]) -> "Finding":
        """Inverse of `facts`.

        Raises:
            ValueError: not a finding that this release knows.
        """
        name, place, text = facts
        if name not in KINDS:
            raise ValueError(f"no finding '{name}'")
        return Finding(name, place, text)


def check_accepted(names: object, setting: str = "data.accept") -> tuple[str, ...]:
    """The names of findings that a configuration accepts.

    Raises:
        ConfigError: not a list of names of findings, or one that cannot be accepted.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{setting}={names!r}: give a list of findings, as in {setting}=[id_column]")
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"{setting}: no finding '{name}'.{nearest(name, ACCEPTABLE)}")
        if name not in ACCEPTABLE:
            raise ConfigError(
                f"{setting}: '{name}' cannot be accepted, since it changes what the numbers mean; see its remedy"
            )
    return tuple(dict.fromkeys(names))


def shorten_list(names: Iterable[object], most: int = 4) -> str:
    """The first names, and how many more there are."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most:,} more" if len(listed) > most else "")
