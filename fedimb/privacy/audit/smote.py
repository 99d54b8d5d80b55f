"""Was a batch made by SMOTE? Such samples lie on segments between records, and reveal both ends.

Ganev et al., "SMOTE and Mirrors: Exposing Privacy Leakage from Synthetic Minority Oversampling", ICLR 2026, arXiv
2510.15083: *DistinSMOTE* (of three points on a line the middle one is synthetic) and *ReconSMOTE* (lines through
synthetic points meet at real records). The paper's attackers know no records. The gate does: its DistinSMOTE checks
which samples lie between two training records, so a single sample per segment is enough, and its ReconSMOTE counts how
many training records are among the points reconstructed from the samples alone. Holdout records serve as controls.

"On a line" means: no further from it than rounding moves a value (`distances.rounding`), column by column. Where
columns are few and coarse, real records lie on such lines too; the controls show it. Not seen: samples with noise added
beyond rounding, and columns that a SMOTE variant fills by vote (SMOTE-NC) with other values than both ends have.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.privacy.audit.distances import squared_distances
from fedimb.privacy.audit.types import Floats, Ids

_CELLS = 250_000  # 2 MB: several such arrays fit in the CPU cache
_NEAREST = 32  # ends tried on one side of a sample; on the other side every record
_CHECKED = 8  # candidate segments per sample that are checked column by column
_MOST = 1500  # samples that ReconSMOTE looks at
_TRIPLES = 2_000_000


@dataclass(frozen=True, eq=False)
class Triples:
    """Three points on a line: ``middle`` indexes the points, ``left`` and ``right`` the records."""

    middle: Ids
    left: Ids
    right: Ids
    distance: Floats


def find_triples(points: Floats, records: Floats, same: bool = False, most: int | None = None) -> Triples:
    """Which points lie strictly between two records, not further than rounding from their segment.

    Args:
        points: [m, F] in units of the rounding (x / `distances.rounding`).
        records: [n, F] likewise.
        same: points are the records themselves, in the same order: none is an end of its own segment.
        most: maximum number per point, those nearest to their segment; None: all, until two million are found.
    """
    features, count = points.shape[1], len(records)
    none = np.zeros(0, np.int64)
    if len(points) == 0 or count < 2:
        return Triples(none, none, none, np.zeros(0))
    centre = records.mean(0)
    points, records = points - centre, records - centre  # reduces cancellation in the products below
    gram = records @ records.T
    own = np.diag(gram)
    length = np.maximum(own[:, None] + own - 2 * gram, 0.0)
    slack = 4.0 * features  # squared distance: twice a sample that is off by half a step in every column
    away, product = squared_distances(points, records), points @ records.T
    if same:
        np.fill_diagonal(away, 0.0)  # seen as a copy, so never an end
    ends = min(_NEAREST, count)
    size = max(1, _CELLS // (ends * count))
    parts: list[tuple[Ids, Ids, Ids, Floats]] = []
    total = 0
    for start in range(0, len(points), size):
        far, dot = away[start : start + size], product[start : start + size]
        near = np.argpartition(far, ends - 1, axis=1)[:, :ends]
        to_near = np.take_along_axis(far, near, 1)[:, :, None]
        along = dot[:, None, :] - gram[near]
        along += (own[near] - np.take_along_axis(dot, near, 1))[:, :, None]
        span = length[near]
        inside = (along > 0) & (along < span) & (span > 4 * slack)
        inside &= (to_near > slack) & (far > slack)[:, None, :]
        m, i, b = np.nonzero(inside)
        off = to_near[m, i, 0] - along[m, i, b] ** 2 / span[m, i, b]
        kept = np.flatnonzero(off <= slack)
        if most is not None:
            kept = kept[np.lexsort((off[kept], m[kept]))]
            kept = kept[np.arange(len(kept)) - np.searchsorted(m[kept], m[kept]) < most]
        m, i, b = m[kept], i[kept], b[kept]
        parts.append((m + start, near[m, i], b, np.sqrt(np.maximum(off[kept], 0.0))))
        total += len(kept)
        if most is None and total > _TRIPLES:
            break
    return Triples(*(np.concatenate([part[i] for part in parts]) for i in range(4)))


def lies_between(points: Floats, records: Floats, same: bool = False) -> NDArray[np.bool_]:
    """DistinSMOTE with known records: [m] bool, whether a point lies between two records; see `find_triples`."""
    found = find_triples(points, records, same, most=_CHECKED)
    way, step = records[found.right] - records[found.left], points[found.middle] - records[found.left]
    along = (step * way).sum(1) / (way * way).sum(1)
    close = np.abs(step - along[:, None] * way).max(1, initial=0.0) <= 1.5
    inside = np.zeros(len(points), dtype=bool)
    inside[found.middle[close]] = True
    return inside


def reconstruct(samples: Floats, rng: np.random.Generator) -> Floats:
    """ReconSMOTE: [r, F] intersections of lines through samples, found from the samples alone.

    A line shows only with at least three samples on its segment, so this needs about 3 k samples per record.

    Args:
        samples: [m, F] in units of the rounding; at most 1,500, else drawn at random.
    """
    features = samples.shape[1]
    if len(samples) > _MOST:
        samples = samples[rng.permutation(len(samples))[:_MOST]]
    if len(samples) < 3 or features < 2:
        return np.zeros((0, features))
    start, way, reach = _lines(samples, find_triples(samples, samples, same=True))
    if len(start) < 2:
        return np.zeros((0, features))
    cosine = way @ way.T
    onto = start @ way.T  # [i, j]: start i along way j
    own = np.diag(onto)
    first, second = onto.T - own[:, None], own[None, :] - onto  # -(w . way_i) and -(w . way_j), w = start_i - start_j
    bend = 1 - cosine**2
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (first - cosine * second) / bend
        u = (cosine * first - second) / bend
    gap = squared_distances(start, start) + t**2 + u**2 - 2 * t * first + 2 * u * second - 2 * t * u * cosine
    # A line known by points a reach apart is as uncertain as they are between them, and more so beyond.
    doubt = 4 * features * (1 + np.abs(t) / reach[:, None] + np.abs(u) / reach[None, :]) ** 2
    meet = (bend > 1e-6) & (gap <= doubt) & (np.abs(t) <= 20 * reach[:, None]) & (np.abs(u) <= 20 * reach[None, :])
    i, j = np.nonzero(np.triu(meet, 1))
    points = start[i] + t[i, j][:, None] * way[i]
    found: Floats = (points + start[j] + u[i, j][:, None] * way[j]) / 2
    return found


def match_records(claimed: Floats, records: Floats, within: float) -> NDArray[np.bool_]:
    """[n] bool: whether a claimed point lies within a distance of each record."""
    hit = np.zeros(len(records), dtype=bool)
    for start in range(0, len(claimed), 4096):
        hit |= (squared_distances(records, claimed[start : start + 4096]) <= within**2).any(1)
    return hit


def _lines(points: Floats, found: Triples) -> tuple[Floats, Floats, Floats]:
    """(a point [L, F], unit direction [L, F], distance of its outermost points [L]) of lines with three points or more.

    Triples that share two points are of one line.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(points)
    members = np.stack([found.middle, found.left, found.right], 1)
    if len(members) == 0:
        return points[:0], points[:0], np.zeros(0)
    pairs = np.stack([np.sort(members[:, cut], 1) @ np.array([count, 1]) for cut in ([0, 1], [0, 2], [1, 2])], 1)
    ids, inverse = np.unique(pairs, return_inverse=True)
    inverse = inverse.reshape(pairs.shape)
    edges = np.concatenate([inverse[:, [0, 1]], inverse[:, [0, 2]]])
    graph = coo_matrix((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(len(ids), len(ids)))
    _, line = connected_components(graph, directed=False)
    start, end = ids // count, ids % count
    apart = (
        ((points[start] - points[end]) ** 2).sum(1)
        if len(ids) * points.shape[1] <= 40_000_000
        else squared_distances(points, points)[start, end]
    )
    order = np.lexsort((-apart, line))
    outermost = order[np.unique(line[order], return_index=True)[1]]
    way = points[end[outermost]] - points[start[outermost]]
    reach = np.linalg.norm(way, axis=1)
    return points[start[outermost]], way / reach[:, None], reach
