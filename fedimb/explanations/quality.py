"""Whether an explanation can be believed: pointing game, sanity check by random weights, overlap of two maps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
RANDOM_MODELS = 19
"""Fewest models with random weights with which a rank can reach `LEVEL`."""


def pointing_game(maps: NDArray[Any], masks: NDArray[Any]) -> float:
    """Share of maps whose largest value lies within the row's mask (Zhang et al., ECCV 2016).

    Args:
        maps: [n, ...] attributions.
        masks: [n, ...] bool, of the same shape; rows without any place in their mask are left out.

    Returns:
        the share; NaN if no row has a mask.
    """
    flat, inside = np.asarray(maps).reshape(len(maps), -1), np.asarray(masks, bool).reshape(len(masks), -1)
    rows = np.flatnonzero(inside.any(axis=1))
    hits = inside[rows, flat[rows].argmax(axis=1)]
    return float(hits.mean()) if len(rows) else float("nan")


def overlap(one: NDArray[Any], two: NDArray[Any]) -> float:
    """What two maps that sum to 1 have in common, from 0 (other places) to 1 (the same)."""
    return float(np.minimum(one, two).sum())


def rank_correlation(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Mean Spearman correlation of maps [n, ...] row by row, as Adebayo et al. (NeurIPS 2018); 0 for a constant map."""
    from scipy.stats import rankdata

    a, b = (rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (one, two))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.divide((a * b).sum(axis=1), norms, out=np.zeros(len(a)), where=norms > 0).mean())


def evidence(attributions: NDArray[Any]) -> float:
    """Sum of all rows' attributions [n, ...] in units of the sum of their sizes: -1 to 1; 0 if nothing is attributed.

    Of an explanation of the logit of each row's class: how much of it speaks for that class. Over all rows together: a
    class that is known by what its rows lack has little in its favour, and little against it, beside a black picture.
    """
    values = np.asarray(attributions, np.float64)
    size = float(np.abs(values).sum())
    return float(values.sum()) / size if size > 0 else 0.0


@dataclass(frozen=True)
class Sanity:
    """Result of the sanity check.

    Attributes:
        evidence: of the explained model.
        random: of the models with random weights, sorted.
        p: rank of the model among them all: (1 + those at least as high) / (1 + their number).
        correlation: mean rank correlation of the model's maps with those of the random ones; near 1: the maps show the
            rows rather than the model.
    """

    evidence: float
    random: tuple[float, ...]
    p: float
    correlation: float

    @property
    def passed(self) -> bool:
        """Whether the model's evidence is above that of nearly all models with random weights."""
        return self.p <= LEVEL + 1e-9

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "evidence": self.evidence,
            "random": list(self.random),
            "p": self.p,
            "correlation": self.correlation,
            "passed": self.passed,
        }


def sanity(evidences: NDArray[Any], correlation: float) -> Sanity:
    """Rank a model's evidence among that of models with random weights.

    The parameter randomisation test of Adebayo et al. ("Sanity Checks for Saliency Maps", NeurIPS 2018) as a rank
    test: a model whose weights are themselves drawn like the others' passes with probability 1 / (1 + K), and an
    explanation that does not depend on the weights never passes.

    Args:
        evidences: [1 + K], that of the explained model first.
        correlation: see `Sanity`.
    """
    own, random = float(evidences[0]), np.asarray(evidences[1:], np.float64)
    p = (1 + int((random >= own - 1e-12).sum())) / (1 + len(random))
    return Sanity(own, tuple(np.sort(random).tolist()), p, correlation)
