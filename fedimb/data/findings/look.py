"""Looks at everything a source read, once, when it is decoded; the store keeps what was found."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.duplicates import exact_groups
from fedimb.data.findings.finding import Finding
from fedimb.data.findings.rows import (
    Parts,
    mark_findings,
    name_findings,
    picture_findings,
    repeat_findings,
    site_findings,
    window_findings,
)
from fedimb.data.findings.tables import column_findings
from fedimb.data.labels import UNKNOWN_CELL, class_counts

RULES = 2
"""Raised when a rule changes or is added: stores that were looked at by earlier rules are looked at again."""


def look_at(data: SourceData) -> tuple[list[Finding], NDArray[np.int64]]:
    """(what is found in the data, including by the source itself, [n] group of identical rows of each row)."""
    groups = exact_groups(data.x)
    return list(_found(data, groups)), groups


def _found(data: SourceData, groups: NDArray[np.int64]) -> Iterator[Finding]:
    yield from data.findings
    if data.signal is not None:
        yield from window_findings(data.x, data.signal)
    elif data.x.ndim > 2 or data.scaled is None:
        yield from picture_findings(data.x, data.scale, Parts.of(data))
    if data.x.ndim == 2 and data.x.dtype == np.float32:
        several = data.targets
        labels = (
            [data.y] if several is None else list(np.where(several == UNKNOWN_CELL, -1, several.astype(np.int64)).T)
        )
        yield from column_findings(data.x, labels, data.columns, groups)
    yield from mark_findings(
        "class", data.class_names, class_counts(data.y, data.targets, len(data.class_names), slice(None))
    )
    yield from name_findings("classes", data.class_names)
    yield from name_findings("sites", data.site_names)
    for name, categories in ({} if data.columns is None else data.columns.categories).items():
        yield from name_findings(f"categories of column '{name}'", categories)
    if data.sites is not None:
        yield from mark_findings("site", data.site_names, np.bincount(data.sites, minlength=len(data.site_names)))
    yield from site_findings(data.y, data.sites, data.site_names, data.class_names)
    yield from repeat_findings(groups, data.y)
