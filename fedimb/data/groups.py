"""Rows that must stay on one side of every split: a patient's, and those that show the same thing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.duplicates import exact_groups, near_groups
from fedimb.data.rows import Rows
from fedimb.data.store import Store
from fedimb.errors import ConfigError, nearest
from fedimb.plain import Settings

GROUPS = ("duplicates", "near_duplicates")


@dataclass(frozen=True)
class SplitConfig:
    """The settings ``data.split``.

    Attributes:
        group: ``duplicates``: identical rows are never on two sides of a split, in addition to a patient's rows;
            ``near_duplicates``: nor are rows that nearly agree (`fedimb.data.duplicates.near_groups`); None: only a
            patient's rows are kept together.
        clients: whether such rows are never at two clients either.
    """

    group: str | None = None
    clients: bool = False

    @staticmethod
    def parse(raw: Settings | None) -> "SplitConfig":
        """Check keys and values; ConfigError names the setting and the remedy."""
        if raw is None:
            return SplitConfig()
        if not isinstance(raw, dict):
            raise ConfigError(
                f"data.split={raw!r}: it takes group and clients, as in data.split.group=duplicates; a split that was "
                "saved is read with data.test={name: file, path: FILE}"
            )
        for key in raw:
            if key not in ("group", "clients"):
                raise ConfigError(f"no setting 'data.split.{key}'.{nearest(str(key), ('group', 'clients'))}")
        config = SplitConfig(**raw)
        if config.group is not None and config.group not in GROUPS:
            raise ConfigError(f"data.split.group: no rule '{config.group}'.{nearest(str(config.group), GROUPS)}")
        if not isinstance(config.clients, bool):
            raise ConfigError(f"data.split.clients={config.clients!r}: give true or false")
        if config.clients and config.group is None:
            raise ConfigError("data.split.clients=true keeps groups at one client: set data.split.group=duplicates too")
        return config


@dataclass(frozen=True, eq=False)
class RowGroups:
    """Rows by the group that is never split up.

    Attributes:
        of_row: [n] int64, the group of each row of the store.
        noun: what a group is, in the plural, for messages.
    """

    of_row: Rows
    noun: str = "patients"


def row_groups(store: Store, group: str | None) -> RowGroups | None:
    """The groups of a store's rows: patients, joined where ``group`` finds two of them with the same row.

    None if every row stands for itself: the source has no patients, and no row occurs twice.

    Args:
        group: see `SplitConfig`.
    """
    patients = None if store.patients is None else np.asarray(store.patients)
    if group is None:
        return None if patients is None else RowGroups(patients, store.units)
    same = exact_groups(store.x) if group == "duplicates" else near_groups(store.x, store.scale, store.scaled)
    if np.array_equal(same, np.arange(len(same))):
        return None if patients is None else RowGroups(patients, store.units)
    if patients is None:
        return RowGroups(same, f"groups of {group.replace('_', '-')}")
    return RowGroups(joined(patients, same), f"groups of {store.units} and {group.replace('_', '-')}")


def joined(one: NDArray[Any], other: NDArray[Any]) -> Rows:
    """[n] int64 ids of the smallest groups that split up neither a group of ``one`` nor one of ``other``, both [n]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    (left, a), (right, b) = (np.unique(ids, return_inverse=True) for ids in (one, other))
    n = len(left) + len(right)
    edges = coo_array((np.ones(len(a), np.bool_), (a, len(left) + b)), shape=(n, n))
    _, component = connected_components(edges, directed=False)
    return component[a].astype(np.int64)


def at_two_sites(groups: NDArray[np.int64] | None, sites: NDArray[np.int64]) -> int:
    """How many groups [n] (None: rows) have rows at more than one of the sites [n]."""
    if groups is None:
        return 0
    pairs = np.unique(np.stack([groups, sites], axis=1), axis=0)
    return int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())


def clients_of_sites(store: Store, held: Sequence[Rows]) -> dict[str, list[int]]:
    """Site name -> ids of the clients whose rows are all of that site; empty if the source has no sites.

    Args:
        held: rows of each client.
    """
    found: dict[str, list[int]] = {}
    if store.sites is not None:
        for client, rows in enumerate(held):
            sites = np.unique(store.sites[rows])
            if len(sites) == 1:
                found.setdefault(store.site_names[int(sites[0])], []).append(client)
    return found
