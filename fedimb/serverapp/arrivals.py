"""Whose updates the model has been made of: rows of each class, and the class prior of what arrived."""

from collections.abc import Callable, Sequence

import numpy as np

from fedimb.records import Arrays

DECAY = 0.99
"""What remains of earlier arrivals in the prior after each round, or version of the model."""


class Arrivals:
    """Adds up what arrives.

    Args:
        counts: rows of each class [K, C] by client, for metrics only; None: unknown, and nothing is reported.
        class_names: of the C classes.
        told: rows of each class [C] of one client as the server knows them, or None, for the prior; None: the prior
            does not follow what arrives (``prior.weighting``).
        whole: weight of all clients together, as their replies have it.
        clients: K, to keep who has arrived at all; 0: that is not kept.
    """

    def __init__(
        self,
        counts: np.ndarray | None,
        class_names: Sequence[str],
        told: Callable[[int], np.ndarray | None] | None = None,
        whole: float = 0.0,
        clients: int = 0,
    ) -> None:
        self.counts, self._names, self._told, self._whole = counts, tuple(class_names), told, whole
        self._rows = np.zeros(len(self._names))
        self._weighed: np.ndarray | None = None
        self._total: float | None = None
        self.seen: np.ndarray | None = np.zeros(clients, np.bool_) if clients else None
        """[K] bool: whose updates the model has been made of; None if that is not known."""

    @property
    def sets_prior(self) -> bool:
        """Whether the prior follows what arrives."""
        return self._told is not None

    def add(self, clients: Sequence[int], weights: Sequence[float]) -> None:
        """Add the updates of a round or version, with the clients' weights in it."""
        if self.seen is not None:
            self.seen[[client for client, weight in zip(clients, weights, strict=True) if weight > 0]] = True
        if self.counts is not None and clients:
            self._rows += self.counts[list(clients)].sum(axis=0)
        if self._told is None or self._weighed is None:
            return
        self._weighed = DECAY * self._weighed
        for client, weight in zip(clients, weights, strict=True):
            rows = self._told(client)
            if rows is not None and rows.sum():
                self._weighed = self._weighed + weight * rows / rows.sum()

    def prior(self, counts: np.ndarray) -> np.ndarray:
        """The class counts [C] of what arrived, decayed, with the sum of those that were given first.

        Args:
            counts: [C], the present ones: before anything arrives those of all clients, as whose arrivals they count.
        """
        if self._total is None:  # kept: the sums of what is returned differ in the last bit, and a resume begins anew
            self._total = float(counts.sum())
        if self._weighed is None:
            self._weighed = counts * (self._whole / counts.sum())
        found: np.ndarray = self._weighed * (self._total / self._weighed.sum())
        return found

    def metrics(self) -> dict[str, float]:
        """The share of each class in all rows behind the updates so far."""
        if self.counts is None or not self._rows.sum():
            return {}
        shares = self._rows / self._rows.sum()
        return {f"exposure/arrived/{name}": float(share) for name, share in zip(self._names, shares, strict=True)}

    def state(self) -> Arrays:
        """Arrays for a checkpoint."""
        found = {} if self.counts is None else {"rows": self._rows}
        found |= {} if self.seen is None else {"seen": self.seen.astype(np.uint8)}
        return found if self._weighed is None else found | {"weighed": self._weighed, "total": np.array(self._total)}

    def load(self, arrays: Arrays) -> None:
        """Inverse of `state`; of an earlier release, nothing is there."""
        self._rows = arrays.get("rows", self._rows)
        if self.seen is not None:
            self.seen = arrays["seen"].astype(np.bool_) if "seen" in arrays else None
        self._weighed = arrays.get("weighed")
        self._total = float(arrays["total"]) if "total" in arrays else None
