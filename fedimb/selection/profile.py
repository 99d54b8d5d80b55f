"""What SCOPE's clients compare their rows with: the global profile, the scores based on it, and the gate.

SCOPE (Hossen et al., arXiv 2603.12976), known only from secondary notes. From these: the profile, the z-scores,
AS = z_sneg - z_rs, R = z_rs - z_sneg - z_ds, T_c = f_c / W_c, W_c in proportion to (1 / (F_c + eps))^gamma. Inferred:
the gate 1 - T_c / max T <= beta, for which "too large a beta deletes the tail" holds, as in FedCS's code. Additions:
gamma 1, eps 1e-6, the treatment of classes outside the profile, and that the rarest class is never pruned.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedimb.contracts.scope import Gate
from fedimb.errors import DataError
from fedimb.registry.arguments import in_range
from fedimb.selection.moments import Floats, Moments
from fedimb.selection.projections import METRICS

RS, DS, SNEG = (METRICS.index(name) for name in ("rs", "ds", "sneg"))
_FLAT = 1e-7  # a spread below float32 rounding of the scores: divided by 1e-8, rounding alone would give a z-score of 1


@dataclass(frozen=True)
class Profile:
    """What the server sends to every client. C classes; rows of a class that no client reported are NaN except in
    counts.

    Attributes:
        counts: [C] float64 N_c.
        mean: [C, 3] float64 of RS, DS, Sneg.
        std: [C, 3] float64, population.
        rarity: [C] float64 W_c; sums to the number of reported classes.
    """

    counts: Floats
    mean: Floats
    std: Floats
    rarity: Floats


def global_profile(pooled: Moments, gamma: float = 1.0, eps: float = 1e-6) -> Profile:
    """The profile from moments over all clients (`moments.pool`), or over one for ``no_global_profile``.

    Raises:
        ConfigError: gamma negative, or eps not above 0.
        DataError: no client reported a row.
    """
    in_range("scope", "gamma", gamma, 0)
    in_range("scope", "eps", eps, 1e-300)
    known = pooled.counts > 0
    if not known.any():
        raise DataError("scope: no class has rows in the profile: lower min_count, or check the clients' counts")
    frequency = np.where(known, pooled.counts / pooled.counts.sum(), np.nan)
    rarity = (1 / (frequency + eps)) ** gamma
    cells = known[:, None]
    return Profile(
        pooled.counts,
        np.where(cells, pooled.mean, np.nan),
        np.where(cells, np.sqrt(pooled.variance), np.nan),
        rarity / np.nansum(rarity) * known.sum(),
    )


def z_scores(scores: Tensor, labels: Tensor, profile: Profile) -> Tensor:
    """(score - global class mean) / (global class std + 1e-8), [n, 3] float64.

    0 if there is nothing to compare with: the class is not in the profile, has no scores, or has the same score in
    every row of the federation (std below 1e-7).
    """
    mean, std = torch.tensor(profile.mean)[labels], torch.tensor(profile.std)[labels]
    z = (scores.double() - mean) / (std + 1e-8)
    return torch.where(torch.isfinite(z) & (std > _FLAT), z, 0.0)


def anomaly(z: Tensor) -> Tensor:
    """AS [n] of z-scores [n, 3]: high if closer to another class and less typical of its own than usual for the
    class."""
    return z[:, SNEG] - z[:, RS]


def redundancy(z: Tensor, diversity: bool = True) -> Tensor:
    """R [n] of z-scores [n, 3]; without ``diversity`` (an ablation) z_ds is left out."""
    return z[:, RS] - z[:, SNEG] - (z[:, DS] if diversity else 0.0)


def prunable(counts: Tensor, profile: Profile, beta: float = 0.5, gate: Gate = "relative") -> Tensor:
    """Which classes stage 2 may prune, [C] bool.

    ``relative``: 1 - T_c / max T <= beta over the classes present. ``literal``: T_c > beta with W summing to 1, as in
    the notes. A class outside the profile is never prunable, nor is the globally rarest one (unless all are equally
    rare), even at a client that has nothing else.

    Args:
        counts: [C] int64 rows at the client after stage 1.
    """
    rarity = torch.tensor(profile.rarity)
    local = counts.double()
    known = torch.isfinite(rarity) & (rarity > 0)
    present = known & (local > 0)
    if not bool(present.any()):
        return present
    over = torch.where(present, local / local.sum() / torch.where(known, rarity, 1.0), 0.0)
    literal = over * rarity[known].sum() > beta
    passes = literal if gate == "literal" else 1 - over / over.max() <= beta
    rarest = (rarity == rarity[known].max()) & (rarity[known].max() > rarity[known].min())
    return present & passes & ~rarest
