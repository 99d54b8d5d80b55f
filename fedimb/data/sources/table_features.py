"""A table's feature columns to float32: numbers, missing values, one-hot categories, missing-value indicators."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from fedimb.data.findings.finding import Finding
from fedimb.data.findings.text import decimal_findings, mark_findings
from fedimb.data.identifiers import identifier, in_order
from fedimb.data.inputs import TableColumns
from fedimb.data.sources.table_file import number
from fedimb.data.sources.table_numbers import NumberFormat, is_mark
from fedimb.data.sources.table_opened import Block
from fedimb.data.sources.table_target import Value
from fedimb.errors import DataError

MISSING = ("", "?", "NA")
_MOST = 1000  # categories collected for one column: more means that an identifier was taken for a category
_LARGEST = float(np.finfo(np.float32).max)
_KEPT = 2000  # rows whose text is kept, for `fedimb.data.findings.text`
_EXACT = 2**53  # from here on several whole numbers have one float
_PLAIN = NumberFormat()


@dataclass(frozen=True, eq=False)
class Features:
    """x [n, F] float32, ``scaled`` [F] bool (`SourceData`), a name per column of x, and how to encode further rows."""

    x: NDArray[np.float32]
    scaled: NDArray[np.bool_]
    names: tuple[str, ...]
    columns: TableColumns


class FeatureColumns:
    """Converts rows of text into one float32 table. Memory: 4 bytes per cell.

    Args:
        names: feature columns in order; the table keeps this order, with a category's columns side by side and the
            indicators last.
        categorical: column -> categories in order, or None to collect those in the data, sorted.
        missing: column -> values that mean "missing", in addition to '', '?' and 'NA': a number matches every spelling
            of it (0 and 0.0), text must match the field exactly.
        indicators: True: a 0/1 column for each column with a missing value in any row; or the columns that always get
            one, so that the table has the same width at every site.
        hint: what to do about text in a column of numbers, for the message.
        spell: a category's identifier; another only for new rows of a run of 0.1.
        numbers: how numbers are written.
        read_marks: read marks such as N/A and null beside numbers as missing and count them; False: they are bad rows.
        typed: whether the columns have types: a number has no spelling then, and the mark '-9' is also -9.0.

    Attributes:
        marks: column -> mark of a missing value that no setting names -> rows.
    """

    def __init__(
        self,
        names: Sequence[str],
        categorical: dict[str, list[Value] | None],
        missing: dict[str, list[Value]],
        indicators: bool | Sequence[str],
        hint: str = "; list the column as categorical, or the value in missing_values",
        spell: Callable[[object], str] = identifier,
        numbers: NumberFormat = _PLAIN,
        read_marks: bool = False,
        typed: bool = False,
    ) -> None:
        self._hint, self._spell, self._number, self._read_marks = hint, spell, numbers, read_marks
        self.marks: dict[str, dict[str, int]] = {}
        self._texts: list[Sequence[str]] = []
        self.names, self.indicators, self._also_missing = list(names), indicators, missing
        self._gathered = {c for c, listed in categorical.items() if listed is None}
        self._codes: dict[str, dict[str, int]] = {
            c: {spell(value): code for code, value in enumerate(listed or ())} for c, listed in categorical.items()
        }
        self._missing_text = {c: {*MISSING, *(v for v in missing.get(c, ()) if isinstance(v, str))} for c in self.names}
        by_value = {c: [v for mark in missing.get(c, ()) for v in _values(mark, typed)] for c in self.names}
        self._missing_number = {c: set(map(float, marks)) for c, marks in by_value.items()}
        self._missing_large = {c: {identifier(mark) for mark in marks} for c, marks in by_value.items()}
        self._special = bool(categorical) or any(missing.values())
        self._cells = array("f")

    def categories(self, name: str) -> list[str] | None:
        """The categories listed for a column, in their one spelling; None: not listed."""
        return list(self._codes[name]) if name in self._codes and name not in self._gathered else None

    def add(self, fields: Sequence[str]) -> None:
        """Add one row, one field per name. DataError names the wrong column; the row is then not added."""
        self._cells.extend(self._plain(fields) or list(map(self._cell, self.names, fields)))
        if len(self._texts) < _KEPT:
            self._texts.append(fields)

    def encode_block(self, block: Block, at: Sequence[int]) -> NDArray[np.float32] | None:
        """[m, columns] float32 as `add` would make it of a block's rows; None if a value needs a message of its own.

        Args:
            at: of each feature column, its index in the block.

        Raises:
            DataError: see `Block.texts`.
        """
        for name, i in zip(self.names, at, strict=True):
            if name in self._codes:
                block.texts(i, identifier=True)  # its error is about the whole column
        try:
            columns = [self._block_column(name, block, i) for name, i in zip(self.names, at, strict=True)]
        except DataError:
            return None
        return None if any(one is None for one in columns) else np.stack(columns, axis=1)  # type: ignore[arg-type]

    def add_encoded(self, cells: NDArray[np.float32]) -> None:
        """Add rows that `encode_block` made."""
        self._cells.frombytes(np.ascontiguousarray(cells).tobytes())

    def _block_column(self, name: str, block: Block, at: int) -> NDArray[np.float32] | None:
        marks = self._also_missing.get(name, ())
        # '0', not 0.0; and -1.1 is another float in a column of narrow floats
        written = any(isinstance(mark, str) or mark % 1 != 0 for mark in marks)
        plain = name not in self._codes and not written
        values = block.numbers(at) if plain else None
        if values is None:
            codes, texts = block.texts(at)
            return np.array([self._cell(name, text) for text in texts], np.float32)[codes]
        if marks:
            values = np.where(np.isin(values, list(self._missing_number[name])), np.nan, values)
        if (np.abs(values) > _LARGEST).any():
            return None
        return values.astype(np.float32)

    def _plain(self, fields: Sequence[str]) -> list[float] | None:
        """A row of plain numbers, converted in one step for speed. None: the row must be converted cell by cell."""
        if self._special or "_" in (together := "".join(fields)):
            return None
        signs = self._number
        if not signs.plain:
            if "." in together or (signs.thousands is not None and signs.thousands in together):
                return None
            fields = [field.replace(signs.decimal, ".") for field in fields]
        try:
            cells = list(map(float, fields))
        except ValueError:
            return None
        usual = isfinite(sum(cells)) and min(cells) >= -_LARGEST and max(cells) <= _LARGEST
        return cells if usual else None

    def _cell(self, name: str, text: str) -> float:
        if text in self._missing_text[name]:
            return float("nan")
        value = self._number(text)
        if value is not None and value in self._missing_number[name] and self._is_mark(name, value, text):
            return float("nan")
        if name in self._codes:
            return self._code(name, self._number.normal(text))
        if self._read_marks and is_mark(text):
            found = self.marks.setdefault(name, {})
            found[text] = found.get(text, 0) + 1
            return float("nan")
        if value is None:
            raise DataError(f"column '{name}': '{text}' is not a number{self._number.hint(text) or self._hint}")
        if not abs(value) <= _LARGEST:
            raise DataError(f"column '{name}': '{text}' is not a finite number; leave the field empty if it is missing")
        return value

    def _is_mark(self, name: str, value: float, text: str) -> bool:
        """Whether a number that equals a mark as a float is the mark."""
        return abs(value) < _EXACT or identifier(self._number.normal(text)) in self._missing_large[name]

    def _code(self, name: str, text: str) -> float:
        codes, known = self._codes[name], self._spell(text)
        if known not in codes:
            if name not in self._gathered:
                raise DataError(f"column '{name}': category '{text}' is not listed ({', '.join(codes)})")
            codes[known] = len(codes)
        return float(codes[known])

    def _found(self, name: str, codes: NDArray[np.float32]) -> list[str]:
        there = set(codes[~np.isnan(codes)].tolist())  # a skipped row may have added a category
        categories = in_order(category for category, code in self._codes[name].items() if code in there)
        if len(categories) > _MOST:
            raise DataError(
                f"column '{name}' has {len(categories)} categories, each of which becomes a column (at most {_MOST}); "
                f"drop it, or leave it out of categorical if it holds numbers"
            )
        return categories

    def findings(self) -> list[Finding]:
        """What the text of the rows shows (`fedimb.data.findings.text`)."""
        numeric = [j for j, name in enumerate(self.names) if name not in self._codes]
        marks = self.marks | {name: held for name in self._codes if (held := self._marked_categories(name))}
        found = list(mark_findings(marks))
        if self._number.plain and self._texts:
            cells = np.frombuffer(self._cells, dtype=np.float32).reshape(-1, len(self.names))
            texts = [[fields[j] for j in numeric] for fields in self._texts]
            found += decimal_findings([self.names[j] for j in numeric], cells[:, numeric], texts)
        return found

    def _marked_categories(self, name: str) -> dict[str, int]:
        """The marks among the categories of a column whose other categories are all numbers, with their rows."""
        marks = [text for text in self._codes[name] if is_mark(text)]
        others = [text for text in self._codes[name] if not is_mark(text)]
        if not marks or name not in self._gathered or not others or None in map(self._number, others):
            return {}
        column = np.frombuffer(self._cells, dtype=np.float32).reshape(-1, len(self.names))[:, self.names.index(name)]
        return {text: rows for text in marks if (rows := int((column == self._codes[name][text]).sum()))}

    def table(self) -> Features:
        """The rows added so far, as one table."""
        cells = np.frombuffer(self._cells, dtype=np.float32).reshape(-1, len(self.names))
        absent = np.isnan(cells)
        blocks: list[NDArray[np.float32]] = []
        names: list[str] = []
        scaled: list[bool] = []
        encoded: dict[str, tuple[str, ...]] = {}
        for j, name in enumerate(self.names):
            if name not in self._codes:
                blocks.append(cells[:, j : j + 1])
                names.append(name)
                scaled.append(True)
                continue
            codes = self._codes[name]
            categories = self._found(name, cells[:, j]) if name in self._gathered else list(codes)
            blocks += [(cells[:, j : j + 1] == codes[category]).astype(np.float32) for category in categories]
            names += [f"{name}={category}" for category in categories]
            encoded[name] = tuple(categories)
            scaled += [False] * len(categories)
        marked = self.indicators
        given = []
        for j, name in enumerate(self.names):
            if name in marked if not isinstance(marked, bool) else marked and absent[:, j].any():
                blocks.append(absent[:, j : j + 1].astype(np.float32))
                names.append(f"{name} missing")
                given.append(name)
                scaled.append(False)
        if not blocks:
            raise DataError("the table has no feature columns; list its columns, or drop fewer")
        given_marks = {name: (*self._also_missing.get(name, ()), *self.marks.get(name, ())) for name in self.names}
        missing = {name: values for name, values in given_marks.items() if values}
        columns = TableColumns(tuple(self.names), encoded, tuple(given), missing)
        return Features(np.concatenate(blocks, axis=1), np.array(scaled, dtype=np.bool_), tuple(names), columns)


def _values(mark: Value, typed: bool) -> list[Value]:
    """The mark, if it is compared as a number."""
    if not isinstance(mark, str):
        return [mark]
    return [mark] if typed and number(mark) is not None else []
