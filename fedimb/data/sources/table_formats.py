"""Opens a table by its file's format: CSV and other separated text, ARFF, KEEL, Parquet, Arrow."""

from collections.abc import Mapping, Sequence

from fedimb.data.sources.table_arrow import ARROW, PARQUET, open_arrow
from fedimb.data.sources.table_attributes import DECLARED, is_declared, open_declared
from fedimb.data.sources.table_file import Layout, read_table
from fedimb.data.sources.table_opened import OpenedTable

TEXT = (".csv", ".tsv", ".txt", ".data")
TABLES = (*TEXT, *DECLARED, *PARQUET, *ARROW)
"""Suffixes of files that hold a table."""


def has_own_header(path: str, encoding: str = "utf-8") -> bool:
    """Whether the file names its columns by its format, without ``header``, ``columns`` and ``delimiter``."""
    low = path.lower()
    return low.endswith((*PARQUET, *ARROW, ".arff")) or (low.endswith(DECLARED) and is_declared(path, encoding))


def open_table(path: str, layout: Layout, spelled: Mapping[str, Sequence[str]] | None = None) -> OpenedTable:
    """A table by the suffix of its file; a .dat file is KEEL's if its header begins with @, else text.

    Args:
        path: the file.
        layout: of a text file.
        spelled: see `fedimb.data.sources.table_arrow.open_arrow`.

    Raises:
        DataError: the file cannot be read, or its header is wrong. ConfigError: its library is not installed.
    """
    low = path.lower()
    if low.endswith((*PARQUET, *ARROW)):
        return open_arrow(path, spelled)
    if has_own_header(path, layout.encoding):
        return open_declared(path, layout)
    names, records = read_table(path, layout)
    return OpenedTable(path, names, records)
