"""From a cell of a list to the name of a file: a template, a suffix, folders to look in."""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedimb.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from fedimb.data.sources.image_files import Files

_SPEC = re.compile(r"(0?\d{0,3})d")


@dataclass(frozen=True)
class FileNames:
    """How a list names its files.

    Args:
        template: such as ``{:03d}.jpg``, where ``{}`` is the cell and ``{column}`` another cell of the row, optionally
            as a whole number of a least width (``:03d``); None: the cell itself.
        suffix: appended to names that do not end with it.
        folders: where the files may be, relative to the root; each file is looked for in all of them.

    Raises:
        ConfigError: template and suffix together, or a template that has no field or more than names and widths in it.
    """

    template: str | None = None
    suffix: str = ""
    folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.template is None:
            return
        if self.suffix:
            raise ConfigError("path_template already writes the whole name: leave out suffix")
        try:
            fields = [part for part in string.Formatter().parse(self.template) if part[1] is not None]
        except ValueError as error:
            raise ConfigError(f"path_template={self.template!r} cannot be read ({error}); write {{:03d}}.jpg") from None
        for _, name, spec, conversion in fields:
            if conversion or re.search(r"[.\[\]!]|^\d+$", name or "") or (spec and not _SPEC.fullmatch(spec)):
                raise ConfigError(
                    f"path_template={self.template!r}: only {{}}, {{column}} and whole numbers ({{:03d}}) are filled in"
                )
        if not fields:
            raise ConfigError(f"path_template={self.template!r} names one file for all rows: write {{}} for the cell")

    def find(self, cell: str, row: Mapping[str, str], files: "Files") -> str:
        """The name of a row's file.

        Raises:
            DataError: a cell that is not the whole number that the template needs, an unknown column, or a file in
                none of the folders or several.
        """
        name = self._written(cell, row) if self.template is not None else cell
        if self.suffix and not name.lower().endswith(self.suffix.lower()):
            name += self.suffix
        if not self.folders:
            return name
        there = [folder for folder in self.folders if files.stamp(f"{folder.rstrip('/')}/{name}")]
        if len(there) != 1:
            where = f"in {there[0]} and in {there[1]}" if there else f"in none of {', '.join(self.folders)}"
            raise DataError(f"'{name}' is {where}; list the folders in folders=[...], with each file in one of them")
        return f"{there[0].rstrip('/')}/{name}"

    def _written(self, cell: str, row: Mapping[str, str]) -> str:
        parts = []
        for before, name, spec, _ in string.Formatter().parse(str(self.template)):
            parts.append(before)
            if name is None:
                continue
            if name and name not in row:
                raise DataError(f"path_template names the column '{name}', which is not there.{nearest(name, row)}")
            value = row[name] if name else cell
            if spec:
                if not re.fullmatch(r"\d+(\.0+)?", value):
                    raise DataError(f"'{value}' is not the whole number that path_template={self.template!r} needs")
                value = format(int(value.partition(".")[0]), spec)
            parts.append(value)
        return "".join(parts)
