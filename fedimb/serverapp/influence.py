"""Bounds on what one client can do to a round: its share of the weights, and the length of its update.

Both need all replies of a round before any is summed, so each reply goes to the server and is summed there: without a
client above the bounds the result is the same to the bit.

With two clients there is no protection: neither is a measure of the other, so nothing is bounded.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord

from fedimb.by_reference import view
from fedimb.contracts import platform as names
from fedimb.engine.lanes import ClientReply, LaneOutcome, Reduction, sum_replies
from fedimb.records import array_record
from fedimb.schema import ClientsConfig

FEWEST = 3
"""Clients below which no bound applies."""


def bounds_influence(config: ClientsConfig) -> bool:
    """Whether a run bounds anything."""
    return config.max_weight_share is not None or config.max_update_ratio is not None


def capped(weights: Sequence[float], share: float | None) -> list[float]:
    """Weights, the largest cut so that none is more than ``share`` of their sum.

    Unchanged if ``share`` is None or fewer than three are above 0; all equal where the share cannot be reached.

    Example:
        >>> capped([1e15, 60, 90, 50], 0.5)
        [200.0, 60, 90, 50]
        >>> capped([10, 1], 0.5)
        [10, 1]
    """
    present = sorted((w for w in weights if w > 0), reverse=True)
    if share is None or len(present) < FEWEST or present[0] <= share * sum(present):
        return list(weights)
    for cut in range(1, len(present)):
        rest, left = sum(present[cut:]), 1 - share * cut
        if left <= 0:
            break
        limit = share * rest / left
        if present[cut] <= limit:
            return [min(w, limit) for w in weights]
    return [min(w, present[-1]) for w in weights]


def capped_counts(counts: np.ndarray, share: float | None) -> np.ndarray:
    """Counts of each client, [K, ...] integers; those of a client above the share are scaled down, rounded down."""
    if share is None or not len(counts):
        return counts
    totals = counts.reshape(len(counts), -1).sum(axis=1).astype(np.float64)
    limits = capped(totals.tolist(), share)
    out = counts.copy()
    for client, (total, limit) in enumerate(zip(totals, limits, strict=True)):
        if limit < total:
            out[client] = np.floor(counts[client] * (limit / total)).astype(counts.dtype)
    return out


def bound(
    outcome: LaneOutcome, sent: Mapping[int, Message], reduce: Reduction, config: ClientsConfig
) -> tuple[LaneOutcome, dict[int, str]]:
    """Bound a round's replies, none of which was summed yet, and sum them.

    Returns:
        the outcome as the workers would have made it, and what was cut by client id.
    """
    usable = [reply for reply in outcome.replies if reply.usable]
    said = _bound_lengths(usable, sent, config.max_update_ratio)
    weights = [reply.metrics[names.WEIGHT] for reply in usable]
    for reply, weight, limit in zip(usable, weights, capped(weights, config.max_weight_share), strict=True):
        if limit < weight:
            reply.metrics[names.WEIGHT] = limit
            cast(MetricRecord, reply.content[names.METRICS])[names.WEIGHT] = limit
            also = f"{said[reply.client]}; " if reply.client in said else ""
            said[reply.client] = f"{also}weight {weight:g} cut to {limit:g} (clients.max_weight_share)"
    return sum_replies(outcome, reduce, sent), said


def _bound_lengths(usable: Sequence[ClientReply], sent: Mapping[int, Message], ratio: float | None) -> dict[int, str]:
    if ratio is None or len(usable) < FEWEST:
        return {}
    updates = {}
    for reply in usable:
        before = cast(ArrayRecord, sent[reply.client].content[names.ARRAYS])
        after = cast(ArrayRecord, reply.content[names.ARRAYS])
        updates[reply.client] = {k: view(a).astype(np.float64) - view(before[k]) for k, a in after.items()}
    lengths = {c: float(np.sqrt(sum(float(np.sum(d * d)) for d in one.values()))) for c, one in updates.items()}
    limit, said = ratio * float(np.median(list(lengths.values()))), {}
    for reply in usable:
        if 0 < limit < lengths[reply.client]:
            factor = limit / lengths[reply.client]
            before = cast(ArrayRecord, sent[reply.client].content[names.ARRAYS])
            cut = {
                k: (view(before[k]) + factor * d).astype(view(before[k]).dtype)
                for k, d in updates[reply.client].items()
            }
            reply.content[names.ARRAYS] = array_record(cut, copy=False)
            said[reply.client] = f"update of norm {lengths[reply.client]:.3g} cut to {limit:.3g}"
            said[reply.client] += " (clients.max_update_ratio)"
    return said


__all__ = ["FEWEST", "bound", "bounds_influence", "capped", "capped_counts"]
