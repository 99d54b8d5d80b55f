"""Are samples nearer to the training records than to records the generator never saw?

Two questions, each with a test that is exact under its null hypothesis for any distribution of distances:

- *nearest record*: for how many samples is the nearest real record a training record? (Share nearer to train than to an
  equal-size holdout: the holdout form of "distance to closest record". Yao et al., "The DCR Delusion", ESORICS 2025,
  show why it is not enough.) Samples share records, so records, not samples, are permuted and drawn again.
- *near copies*: for how many samples is distance(train) / distance(holdout) below that of the real records themselves,
  each left out in turn? A blurred sample is near to everything and has a ratio around 1; a copy has one around 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.evaluation.ratios import percentiles
from fedimb.privacy.audit.distances import squared_distances
from fedimb.privacy.audit.types import Floats, Ids

NATURAL = 0.01
"""Share of real records below the threshold of near copies: real data contain near duplicates too."""

PERMUTATIONS = 1999
_NEIGHBOURS = 512


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Real records of one class, train first, in order of distance from each sample.

    Attributes:
        order: int64 [m, k] positions in train + holdout, nearest first.
        train, holdout: number of records.
    """

    order: Ids
    train: int
    holdout: int

    @staticmethod
    def of(samples: Floats, train: Floats, holdout: Floats, rng: np.random.Generator) -> "Neighbours":
        """Sort by distance and keep at most the 512 nearest; equally near records are in random order."""
        return Neighbours.of_distances(
            squared_distances(samples, np.concatenate([train, holdout])), len(train), len(holdout), rng
        )

    @staticmethod
    def of_distances(distance: Floats, train: int, holdout: int, rng: np.random.Generator) -> "Neighbours":
        """The same from distances [m, train + holdout]."""
        shuffled = rng.permutation(train + holdout)
        distance = distance[:, shuffled]
        kept = min(_NEIGHBOURS, distance.shape[1])
        near = np.argpartition(distance, kept - 1, axis=1)[:, :kept]
        by_distance = np.take_along_axis(distance, near, 1).argsort(1, kind="stable")
        return Neighbours(shuffled[np.take_along_axis(near, by_distance, 1)], train, holdout)

    def planted(self, rows: Ids, other: "Neighbours", from_rows: Ids) -> "Neighbours":
        """With the samples ``rows`` replaced by samples of ``other``."""
        order = self.order.copy()
        order[rows] = other.order[from_rows]
        return Neighbours(order, self.train, self.holdout)


def random_deals(train: int, holdout: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random splits for the permutation test: [1999, train + holdout], 1 if a record is in train."""
    deals = np.zeros((PERMUTATIONS, train + holdout), dtype=np.float32)
    chosen = rng.random(deals.shape, dtype=np.float32).argpartition(train - 1, axis=1)[:, :train]
    np.put_along_axis(deals, chosen, 1, axis=1)
    return deals


def nearest_p(found: Neighbours, deals: NDArray[np.float32]) -> float:
    """p-value: probability of as many samples with their nearest record in train under the random splits ``deals``."""
    hits = np.bincount(found.order[:, 0], minlength=found.train + found.holdout).astype(np.float32)
    return float((1 + (deals @ hits >= hits[: found.train].sum() - 0.5).sum()) / (1 + len(deals)))


def nearest_excess(found: Neighbours) -> float:
    """The share of copies that would explain how many samples have their nearest record in train; may be negative."""
    null = found.train / (found.train + found.holdout)
    return float(((found.order[:, 0] < found.train).mean() - null) / (1 - null))


def nearest_ratio(found: Neighbours, draws: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """(share, low, high) of samples nearer to train than to an equal-size holdout; 0.5 if nothing is memorised.

    The share is the mean over random subsets of the larger side; the 95 % interval resamples both sides' records with
    replacement. A record that is not drawn cannot be found copied, so the interval leans towards 0.5.
    """
    size = min(found.train, found.holdout)
    shares = [_share(found, size, False, rng) for _ in range(draws if found.train != found.holdout else 1)]
    share = float(np.nanmean(shares)) if not np.isnan(shares).all() else float("nan")
    again = np.array([_share(found, size, True, rng) for _ in range(draws)])
    return (share, *percentiles(share, again, 0.95))


def _share(found: Neighbours, size: int, replace: bool, rng: np.random.Generator) -> float:
    """Share nearer to train among samples with a drawn record among their neighbours; NaN if there are none."""
    drawn = np.zeros(found.train + found.holdout, dtype=bool)
    drawn[rng.choice(found.train, size, replace)] = True
    drawn[found.train + rng.choice(found.holdout, size, replace)] = True
    here = drawn[found.order]
    first = here.argmax(1)
    reached = here[np.arange(len(here)), first]
    if not reached.any():
        return float("nan")
    return float((found.order[np.arange(len(here)), first] < found.train)[reached].mean())


def exceedance_probability(below: int, samples: int, rank: int, controls: int) -> float:
    """Probability that at least ``below`` of ``samples`` new values lie below the ``rank``-th smallest control.

    Exact if all are exchangeable and without ties: the count is beta-binomial(samples, rank, controls + 1 - rank).
    """
    from scipy.stats import betabinom

    if samples == 0 or below == 0:
        return 1.0
    return float(betabinom.sf(below - 1, samples, rank, controls + 1 - rank))


def closeness(to_train: Floats, to_holdout: Floats) -> Floats:
    """distance(train) / distance(holdout), [n]; 1 if both are 0, NaN if neither side has a record."""
    both = np.maximum(to_train, to_holdout)
    safe = np.where(both > 0, both, 1.0)
    with np.errstate(invalid="ignore"):  # inf / inf
        top, bottom = to_train / safe, to_holdout / safe
    ratio: Floats = np.divide(top, bottom, out=np.full(len(top), np.inf), where=bottom > 0)
    ratio[both == 0] = 1.0
    return ratio


def near_copies(samples: Floats, controls: Floats) -> tuple[NDArray[np.bool_], float]:
    """([m] which samples are near copies, p) from the closeness of samples [m] and of real records [n], n > 0."""
    rank = max(1, int(NATURAL * len(controls)))
    threshold = np.partition(controls, rank - 1)[rank - 1]
    near: NDArray[np.bool_] = samples < threshold
    return near, exceedance_probability(int(near.sum()), len(samples), rank, len(controls))
