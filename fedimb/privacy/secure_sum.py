"""Sums of which the server learns only the total: every pair of clients shares masks that cancel.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, section 4.1, without
its recovery from dropouts: all clients in the sum must reply (`fedimb.privacy.recoverable_sum` opens it without them).
Arithmetic is modulo 2**64, so a masked vector alone is uniformly random and the sum is exact.

The masks come from the caller: in a simulation from the run's seed, which shows the messages, sizes and cost but
protects nobody; between hospitals from keys that the coordinator does not know
(`fedimb.deploy.site.pairwise_masks`).
"""

from collections.abc import Callable, Sequence

import numpy as np

FRACTION_BITS = 20
"""Fixed point: real numbers are sent in units of 2**-20, about a millionth of a row; sums must stay below 2**43."""

PairMask = Callable[[int, int, int], np.ndarray]
"""(lower id, higher id, n) -> the mask [n] uint64 the two share for this sum; another sum needs other masks."""


def mask_values(values: np.ndarray, client: int, clients: Sequence[int], shared: PairMask) -> np.ndarray:
    """Mask one client's integers [n] int64 into what it sends, [n] uint64: one mask per other client.

    Raises:
        ValueError: ``client`` is not among ``clients``, or ``clients`` has duplicates.

    Example:
        >>> def shared(low, high, n):
        ...     return np.random.default_rng([low, high]).integers(0, 2**64, size=n, dtype=np.uint64)
        >>> counts = {0: np.array([5, 1]), 1: np.array([7, 0]), 2: np.array([2, 2])}
        >>> sent = np.stack([mask_values(own, client, [0, 1, 2], shared) for client, own in counts.items()])
        >>> unmasked_sum(sent).tolist()
        [14, 3]
    """
    if client not in clients or len(set(clients)) != len(clients):
        raise ValueError(f"client {client} must be among the clients to mask for, each listed once")
    total = np.asarray(values, dtype=np.int64).view(np.uint64).copy()
    for other in clients:
        if other != client:
            low, high = min(client, other), max(client, other)
            mask = shared(low, high, total.size)
            total = total + mask if client == low else total - mask
    return total


def unmasked_sum(sent: np.ndarray) -> np.ndarray:
    """Sum what all clients sent, [K, n] uint64, to the sum of their integers [n] int64."""
    total: np.ndarray = np.asarray(sent, dtype=np.uint64).sum(axis=0, dtype=np.uint64).view(np.int64)
    return total


def to_fixed(values: np.ndarray) -> np.ndarray:
    """Convert real numbers [n] to int64 in units of 2**-20, rounded."""
    fixed: np.ndarray = np.rint(np.asarray(values, dtype=np.float64) * 2**FRACTION_BITS).astype(np.int64)
    return fixed


def from_fixed(values: np.ndarray) -> np.ndarray:
    """Inverse of `to_fixed`, float64."""
    real: np.ndarray = np.asarray(values, dtype=np.int64) / 2.0**FRACTION_BITS
    return real
