"""What the cells of label columns mean where rows have several labels: 0, 1, or unknown, as the settings declare.

A cell that only looks like "not known" (empty, -1, NaN) may as well be a negative: CheXpert (Irvin et al., AAAI 2019)
writes -1 for an uncertain finding and leaves one empty that no report mentions. So nothing is guessed: what is neither
0 nor 1 and is not declared makes a bad row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.identifiers import identifier
from fedimb.data.labels import UNKNOWN_CELL
from fedimb.errors import ConfigError, DataError, nearest

Cells = Mapping[int | float | str, object]
"""The setting ``cell_map``."""
NAN, EMPTY = "nan", "empty"
"""Keys of a NaN in an array (in text ``nan`` in upper or lower case), and of an empty cell of text (as '' is)."""
BAD_CELL = 255
_MEANS = {"0": 0, "1": 1, "unknown": UNKNOWN_CELL}


class CellMap:
    """The setting ``cell_map``: value -> 0, 1 or ``unknown``; or column -> such a map, which goes before the others.

    0 and 1 mean themselves unless it says otherwise; ``empty`` is an empty cell, ``nan`` a NaN.

    Args:
        source: name of the source, for messages.
        given: the setting; None: only 0 and 1 mean something.
        columns: names of the label columns, if they are known.

    Raises:
        ConfigError: another shape, a meaning that is none, a value twice, or a column that is not a label column.

    Example:
        >>> cells = CellMap("tabular_csv", {-1: "unknown", "empty": 0, "Edema": {-1: 1}})
        >>> [cells.of(name, "-1") for name in ("Mass", "Edema")], cells.of("Mass", "2")
        ([2, 1], None)
    """

    def __init__(self, source: str, given: object, columns: Sequence[str] | None = None) -> None:
        self.columns: dict[str, dict[str, int]] = {}
        self.common: dict[str, int] = {"0": 0, "1": 1}
        self.declared = given is not None
        if given is None:
            return
        place = f"source '{source}': cell_map"
        if not isinstance(given, Mapping) or not given:
            raise ConfigError(
                f"{place}={given!r}: give what each value means, such as {{-1: unknown, empty: 0}}, or null"
            )
        for name, own in given.items():
            if isinstance(own, Mapping):
                if columns is not None and name not in columns:
                    raise ConfigError(f"{place} names column '{name}', which is no label.{nearest(str(name), columns)}")
                self.columns[str(name)] = _meanings(f"{place}.{name}", own)
        self.common |= _meanings(place, {key: one for key, one in given.items() if not isinstance(one, Mapping)})

    def of(self, column: str, text: str) -> int | None:
        """0, 1 or `UNKNOWN_CELL` for the text of a cell of ``column``; None if it means nothing."""
        value = _key(text)
        found = self.columns.get(column, {}).get(value)
        return self.common.get(value) if found is None else found

    def of_array(self, columns: Sequence[str], raw: NDArray[Any]) -> NDArray[np.uint8]:
        """Numbers [n, C] -> uint8 [n, C]: 0, 1, `UNKNOWN_CELL`, or `BAD_CELL` for what means nothing.

        Raises:
            DataError: a map of a column that the array does not have, or of a value that is no number.
        """
        if odd := [name for name in self.columns if name not in columns]:
            raise DataError(f"cell_map names column '{odd[0]}', which is no class.{nearest(odd[0], columns)}")
        found = np.full(raw.shape, BAD_CELL, np.uint8)
        for value, means in self.common.items():
            found[_equal(raw, value)] = means
        for name, own in self.columns.items():
            at = list(columns).index(name)
            for value, means in own.items():
                found[_equal(raw[:, at], value), at] = means
        return found


def remedy(value: object) -> str:
    """What to set if a value means that nobody knows."""
    return f"; if it means that nobody knows, give cell_map={{{EMPTY if value == '' else value}: unknown}}"


def _meanings(place: str, given: Mapping[Any, object]) -> dict[str, int]:
    found: dict[str, int] = {}
    for value, means in given.items():
        known = _key(value)
        if isinstance(means, bool) or str(means) not in _MEANS:
            raise ConfigError(f"{place}: {value!r} means {means!r}: give 0, 1 or unknown")
        if known in found:
            raise ConfigError(f"{place} has {known!r} twice (1 and 1.0 are one); give each value once")
        found[known] = _MEANS[str(means)]
    return found


def _key(value: object) -> str:
    if isinstance(value, str):
        if value.casefold() == NAN:
            return NAN
        return "" if value == EMPTY else identifier(value)
    return NAN if isinstance(value, float) and np.isnan(value) else identifier(value)


def _equal(raw: NDArray[Any], value: str) -> NDArray[np.bool_]:
    """Where an array holds a value of the map."""
    if value == NAN:
        return np.asarray(np.isnan(raw) if raw.dtype.kind == "f" else np.zeros(raw.shape, bool), np.bool_)
    try:
        return np.asarray(raw == float(value), np.bool_)
    except ValueError:
        raise DataError(f"cell_map has '{value}', but the labels are numbers: give a number, or nan") from None
