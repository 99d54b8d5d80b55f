"""A federation of sites as the root of a tree sees it: its clients are regions, each with the rows of its sites."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fedimb.data.federation import Federation, Rows
from fedimb.data.region_rows import RegionRows
from fedimb.errors import DataError


def regional(federation: Federation, regions: Sequence[int]) -> Federation:
    """The federation whose clients are regions of consecutive sites.

    Args:
        federation: of all sites; its hash stays, because the rows are the same.
        regions: number of sites of each region, in client-id order.

    Raises:
        DataError: they are not the federation's number of sites, or these annotate different classes.
    """
    if sum(regions) != federation.n_clients:
        raise DataError(f"regions of {sum(regions)} sites, but the federation has {federation.n_clients}")
    edges = np.cumsum([0, *regions]).tolist()
    spans = list(pairwise(edges))

    def joined(lists: Sequence[Rows]) -> list[Rows]:
        return [np.sort(np.concatenate([lists[site] for site in range(a, b)])) for a, b in spans]

    counts = np.stack([federation.counts[a:b].sum(axis=0) for a, b in spans])
    labels = None if federation.labels is None else federation.labels.joined(spans)
    found = federation.among(joined(federation.train), joined(federation.validation), counts, labels)
    found.sha = federation.sha
    found.regions = tuple(RegionRows.of(federation.train_sizes[a:b]) for a, b in spans)
    return found


__all__ = ["RegionRows", "regional"]
