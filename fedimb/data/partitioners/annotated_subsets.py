"""Clients that annotate different subsets of the classes, on any data set: rows by another partition, labels by this.

As between detectors of 8, 5 and 1 classes (HeroCrystal, arXiv 2605.02169), or scans of which each hospital outlines
other organs (Shi et al., Medical Image Analysis 2021): a row keeps its class, but its client may not know it.
"""

import numpy as np
from numpy.typing import NDArray

from fedimb.data.config import inner_dealer
from fedimb.errors import ConfigError, DataError
from fedimb.plain import Settings
from fedimb.registry import register


@register("partition", "annotated_subsets", annotates=True)
class AnnotatedSubsets:
    """Deals rows by another partition, then draws which classes each client annotates.

    Every class with rows is annotated by a client that holds some of it, and the numbers of annotators of two classes
    are as equal as the clients' rows allow. A client prefers classes that it holds; with slots left over it annotates
    classes that it happens not to hold. `fedimb.data.label_spaces` says what becomes of the other rows.

    Args:
        classes: how many classes a client annotates, or [fewest, most]: drawn evenly for each client.
        rows: the partition that deals the rows, with its arguments.
        patients, sites, site_names: of the rows, passed on to that partition.

    Raises:
        ConfigError: ``classes`` is not one or two numbers of at least 1, or ``rows`` is not another partition.
    """

    def __init__(
        self,
        classes: int | list[int] = 3,
        rows: Settings | None = None,
        patients: NDArray[np.int64] | None = None,
        sites: NDArray[np.int64] | None = None,
        site_names: tuple[str, ...] = (),
    ) -> None:
        bounds = [classes, classes] if isinstance(classes, int) else list(classes)
        if len(bounds) != 2 or bounds[0] < 1 or bounds[1] < bounds[0]:
            raise ConfigError(
                f"partition 'annotated_subsets': classes={classes}: give a number of at least 1, or [fewest, most]"
            )
        self.fewest, self.most = bounds
        self.inner = inner_dealer(rows, {"patients": patients, "sites": sites, "site_names": site_names})

    def __call__(self, y: NDArray[np.int64], n_clients: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """``n_clients`` sorted int64 lists of positions into ``y`` [n]; a list may be empty."""
        lists: list[NDArray[np.int64]] = self.inner(y, n_clients, rng)
        return lists

    def annotated(self, counts: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
        """Who annotates what, [K, C] bool, from the rows of each class at each client [K, C].

        Raises:
            DataError: more classes than all clients together may annotate, or a class whose holders have no slot left.
        """
        clients, n = counts.shape
        slots = rng.integers(self.fewest, self.most, size=clients, endpoint=True).clip(max=n)
        found = np.zeros((clients, n), bool)
        held = counts > 0
        # Rarely held classes first: their holders still have slots.
        for c in sorted(np.flatnonzero(held.any(axis=0)).tolist(), key=lambda c: (int(held[:, c].sum()), c)):
            free = np.flatnonzero(held[:, c] & (found.sum(axis=1) < slots))
            if not free.size:
                raise DataError(
                    f"partition 'annotated_subsets': no holder of class {c} can annotate it: {clients} clients of "
                    f"{self.fewest} to {self.most} classes for {n} classes; raise partition.classes"
                )
            left = (slots - found.sum(axis=1))[free]
            found[rng.choice(free[left == left.max()]), c] = True
        for k in rng.permutation(clients):
            while found[k].sum() < slots[k]:
                order = np.lexsort((rng.random(n), found.sum(axis=0), ~held[k], found[k]))
                found[k, order[0]] = True
        return found
