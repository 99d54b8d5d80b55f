"""SCOPE's three numbers per row: how typical of its class, how novel, how close to another class.

SCOPE (Hossen et al., arXiv 2603.12976), known only from secondary notes, which agree on these formulas. Embeddings v
and class vectors t of unit length, c the row's class:

    RS = <v, t_c>          DS = || v - RS t_c ||          Sneg = max over j != c of <v, t_j>

DS^2 + RS^2 = 1, so DS adds no information to RS; it is computed because the paper's score uses it. The treatment of a
class without a vector is an addition.
"""

import torch
from torch import Tensor

from fedimb.errors import DataError
from fedimb.selection.checks import finite_rows, labels_fit

METRICS = ("rs", "ds", "sneg")
"""The columns of `project`, in order."""

_BLOCK = 8192  # rows per block: float64 copies of 8192 x 512 are 32 MB
_UNIT = 1e-3


def project(embeddings: Tensor, labels: Tensor, class_vectors: Tensor) -> Tensor:
    """RS, DS and Sneg of every row.

    Vectors are first normalised again in float64, so that DS^2 + RS^2 = 1 holds up to rounding.

    Args:
        embeddings: [n, d] float, unit length.
        labels: [n] int64 in 0..C-1.
        class_vectors: [C, d] float, unit length; a row of NaN if a class has no vector. Such a class is never another
            row's nearest other class, and its own rows have no scores. The class list must be the federation's: Sneg
            also uses classes that the client lacks.

    Returns:
        [n, 3] float64, columns as in `METRICS`. NaN: all three for rows of a class without a vector; Sneg if no other
        class has one.

    Raises:
        DataError: shapes do not match, a value is not finite, or a length is not 1 (within 1e-3).
    """
    if embeddings.ndim != 2 or class_vectors.ndim != 2 or embeddings.shape[1] != class_vectors.shape[1]:
        raise DataError(
            f"embeddings {tuple(embeddings.shape)} and class vectors {tuple(class_vectors.shape)} do not match: "
            "need [n, d] and [C, d] from one encoder"
        )
    labels_fit(labels, len(embeddings), len(class_vectors), "projections")
    missing = torch.isnan(class_vectors).any(1)
    vectors = torch.zeros(class_vectors.shape, dtype=torch.float64)
    vectors[~missing] = _unit(class_vectors[~missing], "class vectors")
    scores = torch.full((len(embeddings), len(METRICS)), torch.nan, dtype=torch.float64)
    for start in range(0, len(embeddings), _BLOCK):
        rows = slice(start, start + _BLOCK)
        scores[rows] = _project(_unit(embeddings[rows], "embeddings"), labels[rows], vectors, missing)
    return scores


def _project(points: Tensor, labels: Tensor, vectors: Tensor, missing: Tensor) -> Tensor:
    cosine = points @ vectors.T
    own = labels[:, None]
    typical = cosine.gather(1, own)
    novel = (points - typical * vectors[labels]).norm(dim=1)
    others = cosine.masked_fill(missing, -torch.inf).scatter(1, own, -torch.inf)
    near = others.amax(1)
    scores = torch.stack([typical[:, 0], novel, near.masked_fill(torch.isneginf(near), torch.nan)], dim=1)
    return scores.masked_fill(missing[labels][:, None], torch.nan)


def _unit(values: Tensor, what: str) -> Tensor:
    points = finite_rows(values, what).double()
    length = points.norm(dim=1, keepdim=True)
    if bool(((length - 1).abs() > _UNIT).any()):
        worst = int((length - 1).abs().argmax())
        raise DataError(f"{what} must have length 1; one has {float(length[worst]):.4g}: divide each by its length")
    return points / length
