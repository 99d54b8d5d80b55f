"""Attributes by which a run is scored (``data.subgroups``): which columns a source reads, and each row's group.

A column need not be a feature. Values are compared as identifiers (`fedimb.data.identifiers`), and a row without one is
in a group of its own, ``missing``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import AttributeColumn
from fedimb.data.identifiers import identifier, in_order, look_alikes
from fedimb.data.store import ATTRIBUTES, Store
from fedimb.errors import ConfigError, DataError, nearest

MISSING, OTHER, SITE = "missing", "other", "site"
_MOST = 100
"""Groups of an attribute: more means that a column of ids or measurements was named without bands."""


@dataclass(frozen=True)
class Subgroup:
    """One entry of ``data.subgroups``.

    Attributes:
        column: name of the column (of an .npz, the array; of DICOM, a column of the list or a header entry), or
            ``site``: the site of each row.
        bands: bounds of groups of a number: [40, 60] makes "under 40", "40 to 60" (60 is not in it) and "60 and over".
        values: the groups, in order; a row with another value is in the group ``other``. Without them the groups are
            the values found, which a deployment cannot do: its sites do not share their rows.
    """

    column: str
    bands: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def declared(self) -> tuple[str, ...] | None:
        """The groups, if they do not depend on the rows."""
        if self.bands:
            low, *rest = [f"{bound:g}" for bound in self.bands]
            between = [f"{a} to {b}" for a, b in zip([low, *rest], rest, strict=False)]
            return (f"under {low}", *between, f"{[low, *rest][-1]} and over", MISSING)
        return (*self.values, OTHER, MISSING) if self.values else None


def parse_subgroups(raw: object) -> tuple[Subgroup, ...]:
    """The setting ``data.subgroups``: names of columns, or mappings of `Subgroup`.

    Raises:
        ConfigError: names the entry and the remedy.
    """
    if raw is None:
        return ()
    if not isinstance(raw, (list, tuple)):
        raise ConfigError(f"data.subgroups={raw!r}: give a list, as in [sex, {{column: age, bands: [40, 60]}}]")
    found = tuple(_parse(entry) for entry in raw)
    for place, one in enumerate(found):
        if one.column in [other.column for other in found[:place]]:
            raise ConfigError(
                f"data.subgroups names '{one.column}' twice: two divisions of one column can be subtracted from each "
                "other; give one"
            )
    return found


def _parse(entry: object) -> Subgroup:
    if isinstance(entry, str) and entry:
        return Subgroup(entry)
    if not isinstance(entry, dict) or not isinstance(entry.get("column"), str) or not entry["column"]:
        raise ConfigError(f"data.subgroups: {entry!r}: give a column's name, or {{column: age, bands: [40, 60]}}")
    known = [one.name for one in fields(Subgroup)]
    if unknown := [key for key in entry if key not in known]:
        raise ConfigError(f"data.subgroups: no setting '{unknown[0]}' of a subgroup.{nearest(str(unknown[0]), known)}")
    where = f"data.subgroups, column '{entry['column']}'"
    bands, values = entry.get("bands") or (), entry.get("values") or ()
    if bands and values:
        raise ConfigError(f"{where}: give bands of a number or values of a text, not both")
    if not isinstance(bands, (list, tuple)) or not all(_number(bound) for bound in bands):
        raise ConfigError(f"{where}: bands={bands!r}: give numbers, as in [40, 60, 80]")
    if any(a >= b for a, b in pairwise(bands)):
        raise ConfigError(f"{where}: bands={list(bands)}: give each bound once, in rising order")
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, (str, int, float)) for v in values):
        raise ConfigError(f"{where}: values={values!r}: give a list of values, as in [f, m]")
    names = tuple(identifier(value) for value in values)
    if len(set(names)) < len(names) or {MISSING, OTHER} & set(names):
        raise ConfigError(f"{where}: values={list(values)}: give each once; '{MISSING}' and '{OTHER}' are added")
    if entry["column"] == SITE and (bands or names):
        raise ConfigError("data.subgroups: the groups of 'site' are the sites; leave out bands and values")
    return Subgroup(entry["column"], tuple(float(bound) for bound in bands), names)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def attribute_columns(subgroups: Sequence[Subgroup]) -> list[str]:
    """The columns that the source reads; the site of a row is known anyway."""
    return [one.column for one in subgroups if one.column != SITE]


def source_to_open(data: Mapping[str, Any]) -> dict[str, object]:
    """A ``data`` group's source as `fedimb.data.store.open_source` takes it, with ``on_bad`` and these columns."""
    source = {**data["source"], "on_bad": data.get("on_bad", "refuse")}
    columns = attribute_columns(parse_subgroups(data.get("subgroups")))
    return source | ({ATTRIBUTES: columns} if columns else {})


def group_names(subgroups: Sequence[Subgroup], sites: Sequence[str]) -> list[tuple[str, ...]]:
    """The groups of each attribute where no rows are at hand.

    Raises:
        ConfigError: an attribute's groups would be the values found in rows.
    """
    found = []
    for one in subgroups:
        groups = tuple(sites) if one.column == SITE else one.declared
        if groups is None:
            raise ConfigError(
                f"data.subgroups, column '{one.column}': the sites of a deployment do not share their values: give "
                "values=[...] or bands=[...]"
            )
        found.append(groups)
    return found


@dataclass(frozen=True, eq=False)
class RowGroupsOf:
    """The groups of a store's rows.

    Attributes:
        names: of each attribute's groups.
        of_row: [A, n] int64 into ``names``.
    """

    names: tuple[tuple[str, ...], ...]
    of_row: NDArray[np.int64]

    @property
    def most(self) -> int:
        """The largest number of groups of an attribute."""
        return max(map(len, self.names))


@lru_cache(maxsize=4)
def subgroups_of(store: Store, subgroups: tuple[Subgroup, ...]) -> RowGroupsOf:
    """The group of each row in each attribute.

    Raises:
        DataError: the store lacks the attribute, its source names no sites, a value is not a number where bands are
            given, or there are too many groups.
    """
    names, codes = [], []
    for one in subgroups:
        groups, of_row = _site_groups(store) if one.column == SITE else _groups(one, store)
        if len(groups) > _MOST:
            raise DataError(
                f"data.subgroups: column '{one.column}' has {len(groups):,} groups, more than {_MOST}: give "
                "bands=[...] of a number, or the values=[...] that matter"
            )
        names.append(groups)
        codes.append(of_row)
    return RowGroupsOf(tuple(names), np.stack(codes))


def _site_groups(store: Store) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    if store.sites is None:
        raise DataError("data.subgroups names 'site', but the data name no sites: give the source its site column")
    return tuple(store.site_names), np.asarray(store.sites, np.int64)


def _groups(one: Subgroup, store: Store) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    if one.column not in store.attributes:
        raise DataError(f"data.subgroups: '{one.column}' was not read with the data; prepare the run again")
    column = store.attributes[one.column]
    if one.bands:
        groups = one.declared or ()
        of_value = [_band(one, value) for value in column.values]
    else:
        found = [value for value in in_order(column.values) if value != MISSING]
        groups = one.declared or (*found, *([MISSING] if _has_missing(column) else ()))
        at = {name: i for i, name in enumerate(groups)}
        of_value = [at.get(value, at.get(OTHER, len(groups) - 1)) for value in column.values]
    table = np.array([*of_value, len(groups) - 1], np.int64)  # the last is missing: a code of -1
    return groups, table[column.codes]


def _has_missing(column: AttributeColumn) -> bool:
    return bool((column.codes < 0).any()) or MISSING in column.values


def _band(one: Subgroup, value: str) -> int:
    if value == MISSING:
        return len(one.bands) + 1
    try:
        number = float(value) if "_" not in value else math.inf
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise DataError(
            f"data.subgroups: column '{one.column}' holds '{value[:40]}', which is not a number: correct it, declare "
            "it as missing, or give values=[...] instead of bands"
        )
    return len(one.bands) + 1 if math.isnan(number) else int(np.searchsorted(one.bands, number, side="right"))


def alike_values(store: Store, subgroups: Iterable[Subgroup]) -> list[str]:
    """A line for each pair of values that look the same and make two groups."""
    return [
        f"data.subgroups: column '{one.column}' holds {' and '.join(map(repr, same))}, which are different groups: "
        "spell them alike in the data if they mean one"
        for one in subgroups
        if one.column in store.attributes and not one.bands
        for same in look_alikes(store.attributes[one.column].values)
    ]
