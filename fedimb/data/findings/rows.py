"""Rows and pictures of any source: range of values, pictures of one value, identical rows, sites of one class."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.findings.finding import Finding, shorten_list
from fedimb.data.identifiers import look_alikes
from fedimb.data.windows import SignalFacts

_CHUNK_BYTES = 1 << 24
_STANDARD = 3.0  # overall deviation up to which float pictures with negative values count as standardised
_SMALL = 16.0  # largest value of digits of 16 grey levels, the most of pictures that are not 0 to 255
_FEWEST = 5  # rows from which a site is judged
NOT_A_NAME = ("", ".", "?", "#n/a", "<na>", "n/a", "na", "nan", "nat", "null")


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts that a source put together: its sites, and of each the training rows and the test rows.

    Attributes:
        of_row: [n] number of each row's part.
        names: of the parts, for messages.
    """

    of_row: NDArray[np.int64]
    names: tuple[str, ...]

    @staticmethod
    def of(data: SourceData) -> "Parts | None":
        """Those of a source's rows; None if there is one only."""
        owner, names = np.zeros(len(data.y), np.int64), [""]
        if data.sites is not None:
            owner, names = data.sites, [f"site {name}" for name in data.site_names]
        test = data.official_test
        if test is not None and test.any() and not test.all():
            owner = 2 * owner + test
            names = [f"{name} {kind}".strip() for name in names for kind in ("training rows", "test rows")]
        return Parts(owner, tuple(names)) if len(names) > 1 else None


def picture_findings(x: NDArray[Any], scale: float, parts: Parts | None = None) -> Iterator[Finding]:
    """Range and content of pictures x [n, ..., height, width].

    Where some parts hold 0 to 255 and others at most 16 (1 in uint8), the parts are named: no one divisor is right.

    Float pictures are right if their values, times ``scale``, lie within -1 to 1, or are standardised: some are
    negative and their deviation over all pictures is at most 3. A flat picture, float [n, h h] or [n, 3 h h] from
    8 x 8 on, counts as one if all its values are whole numbers of 0 to 255 that reach 100.
    """
    flat = x.ndim == 2
    if flat and parts is not None and _flat_width(x) and (found := _mixed_ranges(x, parts, 1 << 12)) is not None:
        yield found
        return
    if flat and not _may_be_flat_pictures(x):
        return
    step = max(1, _CHUNK_BYTES // max(1, x[0].nbytes))
    low, high, blank = np.inf, -np.inf, 0
    for start in range(0, len(x), step):
        part = x[start : start + step].reshape(len(x[start : start + step]), -1)
        if x.dtype != np.uint8:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
        blank += 0 if flat else _blank(part)
    mixed = None if flat or parts is None else _mixed_ranges(x, parts, step)
    if mixed is not None:
        yield mixed
    elif x.dtype != np.uint8 and max(-low, high) * scale > 1 + 1e-6:
        yield from _range(x, scale, low * scale, high * scale, step)
    if blank and not flat:
        yield Finding(
            "constant_pictures", "pictures", f"{blank:,} of {len(x):,} have the same value everywhere: look at them"
        )


def window_findings(x: NDArray[Any], signal: SignalFacts) -> Iterator[Finding]:
    """Channels of signals x [n, channels, length] that have one value throughout a window: a lead that came off."""
    step = max(1, _CHUNK_BYTES // max(1, x[0].nbytes))
    flat = np.zeros(x.shape[1], np.int64)
    for start in range(0, len(x), step):
        part = np.asarray(x[start : start + step]).reshape(-1, x.shape[1], int(np.prod(x.shape[2:])))
        flat += (part == part[:, :, :1]).all(axis=2).sum(axis=0)
    if not flat.any():
        return
    names = signal.channels or tuple(map(str, range(x.shape[1])))
    shown = [f"{names[c]} ({flat[c]:,})" for c in np.flatnonzero(flat).tolist()]
    text = f"have one value throughout a window (windows of {len(x):,}): is the lead off, or the recording empty there?"
    yield Finding("constant_windows", f"channel{'s' * (len(shown) > 1)} {shorten_list(shown)}", text)


def _blank(part: NDArray[Any]) -> int:
    """Rows of one value. Most pictures differ in a few places already, and are not looked at further."""
    places = np.linspace(0, part.shape[1] - 1, 7).astype(np.int64)
    few = part[:, places]
    left = part[(few == few[:, :1]).all(axis=1)]
    return int((left == left[:, :1]).all(axis=1).sum())


def _mixed_ranges(x: NDArray[Any], parts: Parts, step: int) -> Finding | None:
    """Parts of pictures with values of 0 to 255 beside parts of small ones."""
    most, small, large = (1.0 if x.dtype == np.uint8 else _SMALL), [], []
    order = np.argsort(parts.of_row, kind="stable")
    numbers, starts = np.unique(parts.of_row[order], return_index=True)
    for part, rows in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        ends = _ends(x, rows, most, step)
        if ends is None:
            large.append((part, rows))
        elif max(ends) > 0 and len(rows) >= _FEWEST:
            small.append((part, ends))
    if not small:
        return None
    raw = []
    for part, rows in large:
        low, high = _ends(x, rows, np.inf, step) or (-1.0, 0.0)
        whole = x.ndim > 2 or bool((np.floor(x[rows[:64]]) == x[rows[:64]]).all())  # a table may reach 255, too
        if low >= 0 and 100 <= high <= 255 and whole:
            raw.append(part)
    if not raw:
        return None
    shown = [f"{parts.names[part]} ({ends[0]:.4g} to {ends[1]:.4g})" for part, ends in small]
    return Finding(
        "picture_range",
        shorten_list(shown),
        f"values that are not those of {shorten_list(parts.names[part] for part in raw)}, which reach 255: no one "
        "divisor is right for both; bring them to the same range in the files",
    )


def _ends(x: NDArray[Any], rows: NDArray[np.int64], most: float, step: int) -> tuple[float, float] | None:
    """Smallest and largest value of these rows; None as soon as one is beyond ``most``."""
    low, high, start, size = np.inf, -np.inf, 0, 16
    while start < len(rows):  # a few rows first: nearly always they tell
        part = x[rows[start : start + size]]
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        if max(-low, high) > most:
            return None
        start, size = start + size, min(step, 4 * size)
    return low, high


def _flat_width(x: NDArray[Any]) -> bool:
    """Whether a row may be a picture of at least 8 x 8, in one or three channels."""
    width = x.shape[1]
    sides = [round((width / channels) ** 0.5) for channels in (1, 3)]
    return any(s >= 8 and c * s * s == width for s, c in zip(sides, (1, 3), strict=True))


def _may_be_flat_pictures(x: NDArray[Any]) -> bool:
    if x.dtype == np.uint8 or not _flat_width(x):
        return False
    part = x[:64]
    if (np.floor(part) != part).any():  # also of NaN
        return False
    high = max(float(x[start : start + 4096].max()) for start in range(0, len(x), 4096))
    return bool(float(part.min()) >= 0 and 100 <= high <= 255)


def _range(x: NDArray[Any], scale: float, low: float, high: float, step: int) -> Iterator[Finding]:
    if low < 0 < high:
        variances = [x[i : i + step].std(dtype=np.float64) ** 2 for i in range(0, len(x), step)]
        if np.sqrt(np.mean(variances)) * scale <= _STANDARD:
            return
    remedy = "bring them to 0 to 1, or standardise them"
    if low >= 0:
        by = "255" if 100 <= high <= 255 else f"{high:.7g}"
        remedy = f"divide them by {by} (data.source.divide_by={by} where the source has it)"
    yield Finding(
        "picture_range",
        "pictures",
        f"float values from {low:.6g} to {high:.6g}, where a model expects 0 to 1: {remedy}, or save 0 to 255 as uint8",
    )


def repeat_findings(groups: NDArray[np.int64], y: NDArray[np.int64]) -> Iterator[Finding]:
    """Identical rows, from the number of each row's group (`fedimb.data.duplicates.exact_groups`)."""
    further = groups != np.arange(len(groups))
    if not further.any():
        return
    other = int((y[further] != y[groups[further]]).sum())
    text = f"{int(further.sum()):,} of {len(groups):,} are identical to an earlier one"
    if other:
        text += f", {other:,} of them with another class"
    yield Finding("repeated_rows", "rows", f"{text}: see that none was entered twice")


def site_findings(
    y: NDArray[np.int64], sites: NDArray[np.int64] | None, site_names: Sequence[str], class_names: Sequence[str]
) -> Iterator[Finding]:
    """Sites of at least five rows that all have the same class, where the data have several."""
    if sites is None or len(class_names) < 2:
        return
    table = np.zeros((len(site_names), len(class_names)), np.int64)
    np.add.at(table, (sites, y), 1)
    rows = table.sum(axis=1)
    single = np.flatnonzero((rows >= _FEWEST) & (table.max(axis=1) == rows))
    if not len(single):
        return
    shown = shorten_list(
        f"{site_names[s]} ({rows[s]:,} of {class_names[int(table[s].argmax())]})" for s in single.tolist()
    )
    yield Finding(
        "one_class_sites",
        f"site{'s' * (len(single) > 1)} {shown}",
        f"{len(single):,} of {len(site_names):,} sites with rows of one class only: the site gives the class away; see "
        "that the labels mean the same everywhere",
    )


def name_findings(what: str, names: Iterable[str], private: bool = False) -> Iterator[Finding]:
    """Names that are different identifiers and differ in spelling only (`fedimb.data.identifiers.look_alikes`).

    Args:
        what: whose names.
        private: count them, but do not show them: patients.
    """
    groups = look_alikes(names)
    if private and groups:
        text = f"{len(groups):,} groups of ids differ only in case, zeros in front, space or the like, and are several"
        yield Finding("look_alike_names", what, f"{text} people here: if they are one, spell them alike in the data")
        return
    for alike in groups:
        text = f"{shorten_list(map(repr, alike))} are different names here"
        yield Finding("look_alike_names", what, f"{text}: if they mean one, spell them alike in the data")


def mark_findings(what: str, names: Sequence[str], counts: NDArray[np.int64]) -> Iterator[Finding]:
    """Classes or sites whose name means "missing"."""
    for name, rows in zip(names, counts.tolist(), strict=True):
        if rows and name.strip().lower() in NOT_A_NAME:
            yield Finding(
                "missing_marks",
                f"{what} '{name}'",
                f"{rows:,} rows, as if a missing {what} were a {what}: leave these rows out, or give the mark in "
                "data.source.missing where the source has it",
            )
