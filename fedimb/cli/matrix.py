"""Prints which parts can be combined: grids that fit the terminal, and one reason per rule instead of one per pair."""

from collections.abc import Sequence

from fedimb.config.combinations import Cell
from fedimb.text import WIDTH


def render(cells: Sequence[Cell]) -> str:
    """One grid per pair of kinds with a refused combination, then the reasons; lines below 100 columns.

    The kind with more parts is in the rows, the other in the columns; a grid that is too wide continues below.
    """
    reasons = list(dict.fromkeys(_general(cell) for cell in cells if cell.reason))
    blocks: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        blocks.setdefault((cell.first[0], cell.second[0]), []).append(cell)
    lines: list[str] = []
    for block in blocks.values():
        if any(cell.reason for cell in block):
            lines += [*_grid(block, reasons), ""]
    for number, reason in enumerate(reasons, start=1):
        lines += _wrapped(f"[{number}] ", reason)
    allowed = sum(cell.reason is None for cell in cells)
    return "\n".join(
        [*lines, f"{allowed} of {len(cells)} pairs are allowed (ok). Kinds without a grid can all be combined."]
    )


def _general(cell: Cell) -> str:
    """The reason without names, so that one line covers every pair a rule refuses."""
    reason = cell.reason or ""
    (kind, first), (_, second) = cell.first, cell.second
    if kind == cell.second[0]:  # two methods, one wrapping the other
        for side, name in (("outer", first), ("inner", second)):
            reason = reason.replace(f"{kind} '{name}'", f"the {side} {kind}")
        return reason.replace(f"use {kind}=[{second},{first}]", "use them in the other order")
    for kind, name in (cell.first, cell.second):
        reason = reason.replace(f"{kind} '{name}'", f"this {kind}")
    return reason


def _wrapped(mark: str, text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark))


def _grid(block: list[Cell], reasons: list[str]) -> list[str]:
    marks = {
        (cell.first[1], cell.second[1]): f"[{reasons.index(_general(cell)) + 1}]" if cell.reason else "ok"
        for cell in block
    }
    down, across = (list(dict.fromkeys(pair[side] for pair in marks)) for side in (0, 1))
    first, second = block[0].first[0], block[0].second[0]
    if first == second:  # the order of two strategies matters
        across = down
        first, second = f"outer {first}", f"inner {second}"
    elif len(across) > len(down):
        marks = {(b, a): mark for (a, b), mark in marks.items()}
        down, across, first, second = across, down, second, first
    title = f"{first} \\ {second}"
    left = max(len(title), *map(len, down))
    lines: list[str] = []
    while across:
        part = _fitting(across, WIDTH - left)
        across = across[len(part) :]
        widths = [max(len(name), 4) for name in part]
        table = [[title, *part], *([row, *(marks.get((row, name), "") for name in part)] for row in down)]
        lines += [""] if lines else []
        for row in table:
            cells = [text.ljust(width) for text, width in zip(row, [left, *widths], strict=True)]
            lines.append("  ".join(cells).rstrip())
    return lines


def _fitting(names: list[str], room: int) -> list[str]:
    """The first names that fit side by side, at least one."""
    used, count = 0, 0
    for name in names:
        used += 2 + max(len(name), 4)
        if count and used > room:
            break
        count += 1
    return names[:count]
