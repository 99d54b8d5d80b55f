"""A count matrix as text, with the middle summed up if it is too long or too wide to read."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedimb.text import WIDTH, aligned, width

MOST_ROWS = 20
_NAME = 8


def matrix_lines(
    counts: NDArray[np.int64],
    class_names: Sequence[str],
    order: Sequence[int],
    minority: Sequence[int],
    what: str,
    row_names: Sequence[str],
    unit: str = "rows",
) -> list[str]:
    """Rows (clients, sites) x classes from the largest to the smallest, with sums; ``.`` is 0, ``<`` a minority class.

    Above 20 rows: the ten largest and the ten smallest, the rest summed in one line. Classes that do not fit are summed
    in one column, from the middle out. Headings are class names, or ids if names do not fit.

    Args:
        counts: [K, C] >= 0.
        class_names: C names.
        order: class ids, head to tail.
        minority: class ids.
        what: heading of the row names.
        row_names: K names.
        unit: heading of the sums; ``labels`` if a row of data counts for several classes.

    Returns:
        lines under 100 columns.
    """
    sums = counts.sum(axis=1)
    by_size = np.argsort(-sums, kind="stable").tolist()
    half = MOST_ROWS // 2
    rare = set(minority)
    first, hidden, last = list(range(len(counts))), [], []
    if len(counts) > MOST_ROWS:
        first, hidden, last = by_size[:half], by_size[half:-half], by_size[-half:]
    table = [*((row_names[k], counts[k]) for k in first)]
    if hidden:
        table.append((f"... {len(hidden):,} between", counts[hidden].sum(axis=0)))
    table += [(row_names[k], counts[k]) for k in last]
    if len(counts) > 1:
        table.append(("all", counts.sum(axis=0)))

    for named in (True, False):
        heads = [class_names[c] if named else str(c) for c in range(len(class_names))]
        title = f"{what} \\ class" + ("" if named else " id")
        left = [[title, unit, "classes"], *([n, _number(row.sum()), f"{(row > 0).sum():,}"] for n, row in table)]
        columns = {c: [heads[c] + "<" * (c in rare), *(_number(row[c]) for _, row in table)] for c in order}
        kept, middle = _fitting(columns, list(order), WIDTH - max(map(width, aligned(left))))
        if not middle and max(map(width, heads)) <= _NAME:
            break
    at = len(kept) // 2 if middle else len(kept)
    cells = [columns[c] for c in kept[:at]]
    if middle:
        cells.append([f"+{len(middle):,} more", *(_number(row[middle].sum()) for _, row in table)])
    cells += [columns[c] for c in kept[at:]]
    return aligned([[*line, *(column[i] for column in cells)] for i, line in enumerate(left)])


def _number(value: int) -> str:
    return f"{value:,}" if value else "."


def _fitting(columns: dict[int, list[str]], order: list[int], room: int) -> tuple[list[int], list[int]]:
    """Classes that fit into ``room`` columns of text, taken from both ends in turn, and those between to sum up."""
    wide = {c: 2 + max(map(width, cells)) for c, cells in columns.items()}
    if sum(wide.values()) <= room:
        return order, []
    room -= 2 + max(len(f"+{len(order):,} more"), 11)  # the summed column: counts up to 999,999,999
    head, tail = 0, 0
    while head + tail < len(order):
        from_tail = tail <= head
        c = order[-1 - tail] if from_tail else order[head]
        if wide[c] > room:
            break
        room -= wide[c]
        head, tail = head + (not from_tail), tail + from_tail
    return order[:head] + order[len(order) - tail :], order[head : len(order) - tail]
