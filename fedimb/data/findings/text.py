"""What only the text of a table shows: signs that may part thousands, and marks of missing values."""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedimb.data.findings.finding import Finding

_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")
_SHOWN = 3


def decimal_findings(
    names: Sequence[str], cells: NDArray[np.float32], texts: Sequence[Sequence[str]]
) -> Iterator[Finding]:
    """Columns in which a point may part thousands: 7.111 stands beside 769.

    A column is asked about if every number with a point is below 1,000 and has one to three digits before the point,
    the first not 0, and exactly three after it; and every number without a point is below 1,000, one of them at least
    100. A real decimal column has a shorter number, one below 1, or a whole number of four digits.

    Args:
        names: of the columns of numbers.
        cells: [n, columns] as read.
        texts: the fields of the first rows, as written: they show zeros at the end, which a number does not.
    """
    for j, name in enumerate(names):
        values = np.abs(cells[:, j][~np.isnan(cells[:, j])].astype(np.float64))
        if not len(values) or values.max() >= 1000:
            continue
        fraction = values != np.floor(values)
        thousandths = values[fraction] * 1000
        if not fraction.any() or values[fraction].min() < 1 or values[~fraction].max(initial=0) < 100:
            continue
        if (np.abs(thousandths - np.round(thousandths)) > 0.1).any():
            continue  # more than three digits after the point
        if (np.round(thousandths) % 10 == 0).mean() > 0.5:
            continue  # mostly two digits
        written = [row[j] for row in texts if "." in row[j]]
        if not all(_THOUSANDS.fullmatch(text) for text in written):
            continue
        one = written[0] if written else f"{values[fraction][0]:.3f}"
        whole = values[~fraction].max()
        yield Finding(
            "decimal_signs",
            f"column '{name}'",
            f"{one} stands beside {whole:.0f}: if it is {one.replace('.', '')}, give "
            "data.source.decimal=\"','\" data.source.thousands=\"'.'\"",
        )


def mark_findings(marks: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    """Columns whose numbers stand beside marks such as N/A, which were read as missing.

    Args:
        marks: column -> the mark as written -> rows.
    """
    for name, found in marks.items():
        shown = " and ".join(f"'{text}' in {rows:,} rows" for text, rows in list(found.items())[:_SHOWN])
        yield Finding(
            "missing_marks",
            f"column '{name}'",
            f'{shown} beside numbers: if it means missing, give data.source.missing="[{", ".join(map(repr, found))}]"',
        )
