"""An opened table of any file format: column names, and rows of text or blocks of typed columns."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedimb.data.sources.table_file import Record
from fedimb.errors import DataError

Coded = tuple[NDArray[np.int64], list[str]]
"""(code [m] of each row, the text behind each code): the distinct texts of a column, in order of first appearance."""


class Block(Protocol):
    """Consecutive rows of a file whose columns have types."""

    def numbers(self, column: int) -> NDArray[np.float64] | None:
        """[m] values, NaN where missing; None if the column's type is not a number."""

    def texts(self, column: int, identifier: bool = False) -> Coded:
        """The column as text, as `records` spells it.

        Args:
            identifier: whether the values name something (a class, a patient), so that each must be exact.

        Raises:
            DataError: an identifier in a float column is a whole number beyond 2^53, where floats merge neighbours.
        """

    def records(self) -> Iterator[Record]:
        """The same rows one by one, as text."""


@dataclass
class OpenedTable:
    """A table whose rows have not been read yet.

    Attributes:
        path: as given in the configuration.
        names: of the columns.
        records: (place, fields of text) of each row, as `fedimb.data.sources.table_file.read_table` gives them. Read
            these or ``blocks``, not both.
        blocks: the same rows in blocks of typed columns; None: the file is text.
        nominal: column -> the values that the file itself declares, in its order.
        odd: column -> what it holds, where that is neither a number nor text ("dates").
        inexact: column -> where it holds a float beyond 2^53, which may stand for several whole numbers.
        outputs: the columns that the file itself declares as labels.
        typed: whether columns have types, so that a number has no spelling of its own; always with ``blocks``.
    """

    path: str
    names: tuple[str, ...]
    records: Iterator[Record]
    blocks: Iterator[Block] | None = None
    nominal: dict[str, tuple[str, ...]] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    inexact: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    typed: bool = False

    def __post_init__(self) -> None:
        self.typed = self.typed or self.blocks is not None


def first_of(rows: Iterator[Any], path: str) -> Iterator[Any]:
    """``rows`` unchanged. DataError if there are none."""
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} has no rows; add rows or leave the file out")
    return chain([first], rows)
