"""SCOPE: drop anomalous rows, then redundant rows, the latter only in frequent classes.

SCOPE (Hossen et al., arXiv 2603.12976), known only from secondary notes; scores and gate are in `profile`. From the
notes: stage 1 drops the p_l of a client's rows with the largest AS, stage 2 the p_f with the largest R in each class
that passes the gate. Additions: class counts are taken after stage 1, the guards, ties, the ablation ``no_diversity``
and the controls ``random``, ``score_only``, ``undersample``. ``p_f=.9`` does not drop 90 % of the rows: report the
number that was kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from fedimb.contracts.scope import Choice, Gate, Variant
from fedimb.errors import ConfigError, nearest
from fedimb.registry.arguments import in_range
from fedimb.selection.budgets import capped
from fedimb.selection.checks import labels_fit
from fedimb.selection.moments import class_moments
from fedimb.selection.profile import RS, Profile, anomaly, global_profile, prunable, redundancy, z_scores


@dataclass(frozen=True)
class Pruned:
    """Result of `prune`. Positions are ascending int64; kept, anomalous and redundant together contain every row once.

    Attributes:
        kept: rows to train on.
        anomalous: dropped by stage 1.
        redundant: dropped by stage 2 (by ``undersample``: all dropped rows).
        classes: [k] int64 classes that stage 2 was allowed to prune.
    """

    kept: Tensor
    anomalous: Tensor
    redundant: Tensor
    classes: Tensor


def prune(
    scores: Tensor,
    labels: Tensor,
    profile: Profile,
    *,
    p_f: float,
    p_l: float = 0.1,
    beta: float = 0.5,
    gate: Gate = "relative",
    choice: Choice = "scope",
    variant: Variant = "full",
    min_rows: int = 2,
    gamma: float = 1.0,
    eps: float = 1e-6,
    generator: torch.Generator | None = None,
) -> Pruned:
    """Both stages for one client.

    Choices: ``scope`` by R. ``random``: stage 1, gate and counts per class as in ``scope``, but the rows of stage 2 at
    random.
    ``score_only``: R in every class, no gate. ``undersample``: as many rows as scope keeps, but globally frequent
    classes are sampled down to a cap (`budgets.capped`), without scores. For a control without scores but with the
    counts per class of ``scope``, pass these to the coreset rule `random` as ``per_class``.

    Guards: a present class keeps at least one row, a client at least ``min_rows`` rows (BatchNorm needs 2) if it has
    them; a row kept for this reason is not replaced by dropping another. Classes without scores, or outside the
    profile, are not pruned by stage 2. In ties the earlier position is dropped first.

    Args:
        scores: [n, 3] float, `projections.project`.
        labels: [n] int64.
        p_f: share of each prunable class that stage 2 drops, [0, 1].
        p_l: share of all rows that stage 1 drops, [0, 1].
        beta: see `prunable`.
        gamma, eps: of the client's own profile, for ``no_global_profile``.
        generator: needed by ``random`` and ``undersample``.

    Raises:
        ConfigError: a value out of range, an unknown choice, gate or variant, or a missing generator.
        DataError: scores, labels and profile do not match.
    """
    words = {"gate": (gate, Gate), "choice": (choice, Choice), "variant": (variant, Variant)}
    _check(p_f, p_l, beta, words, generator is not None)
    n_classes = len(profile.counts)
    labels_fit(labels, len(scores), n_classes, "scope")
    own = class_moments(scores, labels, n_classes)  # refuses scores that are NaN for only part of a class
    if variant == "no_global_profile" and len(labels):
        profile = global_profile(own, gamma, eps)
    z = z_scores(scores, labels, profile)
    first = _stage_one(anomaly(z), labels, 0.0 if variant == "no_anomaly" else p_l, min_rows, n_classes)
    left = torch.nonzero(~first).flatten()
    counts = torch.bincount(labels[left], minlength=n_classes)
    free = torch.zeros(n_classes, dtype=torch.bool)
    free[labels[left][torch.isfinite(scores[left, RS])]] = True
    free &= torch.tensor(profile.counts) > 0
    if choice != "score_only":
        free &= prunable(counts, profile, beta, gate)
    share = 0.0 if variant == "no_redundancy" else p_f
    drops = _guarded(torch.where(free, _floor(share, counts), 0), counts, min_rows)
    if choice == "undersample":
        keep = len(left) - int(drops.sum())
        return _undersample(labels, torch.tensor(profile.counts), keep, n_classes, generator)
    score = redundancy(z, diversity=variant != "no_diversity")[left]
    if choice == "random":
        score = torch.rand(len(left), generator=generator, dtype=torch.float64)
    second = torch.zeros_like(first)
    second[left[_largest(score, labels[left], drops)]] = True
    return _pruned(first, second, free)


def _check(p_f: float, p_l: float, beta: float, words: Mapping[str, tuple[str, object]], seeded: bool) -> None:
    for key, value in (("p_f", p_f), ("p_l", p_l), ("beta", beta)):
        in_range("scope", key, value, 0, 1)
    for key, (word, valid) in words.items():
        if word not in get_args(valid):
            raise ConfigError(f"scope: no {key} '{word}'.{nearest(word, get_args(valid))}")
    if not seeded and words["choice"][0] in ("random", "undersample"):
        raise ConfigError(f"scope: choice={words['choice'][0]} draws rows at random: give a generator")


def _stage_one(score: Tensor, labels: Tensor, share: float, min_rows: int, n_classes: int) -> Tensor:
    """[n] bool, rows dropped over the whole client, except the best row of a class that would become empty."""
    dropped = torch.zeros(len(labels), dtype=torch.bool)
    count = min(int(_floor(share, torch.tensor(len(labels)))), max(0, len(labels) - min_rows))
    order = torch.argsort(score, descending=True, stable=True)[:count]
    dropped[order] = True
    emptied = torch.bincount(labels[~dropped], minlength=n_classes) == 0
    for label in torch.unique(labels[order][emptied[labels[order]]]).tolist():
        dropped[order[labels[order] == label][-1]] = False
    return dropped


def _floor(share: float, counts: Tensor) -> Tensor:
    return (share * counts.double() + 1e-9).floor().long()  # .29 * 100 is 28.999999999999996


def _guarded(drops: Tensor, counts: Tensor, min_rows: int) -> Tensor:
    drops = torch.minimum(drops, (counts - 1).clamp(min=0))
    while int(drops.sum()) > max(0, int(counts.sum()) - min_rows):
        drops[drops.argmax()] -= 1
    return drops


def _largest(score: Tensor, labels: Tensor, drops: Tensor) -> Tensor:
    """Positions of the ``drops[c]`` largest scores of each class c."""
    order = torch.argsort(score, descending=True, stable=True)
    by_class = order[torch.argsort(labels[order], stable=True)]
    counts = torch.bincount(labels, minlength=len(drops))
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]
    return by_class[rank < drops[labels[by_class]]]


def _undersample(
    labels: Tensor, global_counts: Tensor, keep: int, n_classes: int, generator: torch.Generator | None
) -> Pruned:
    have = torch.bincount(labels, minlength=n_classes)
    drops = have - capped(have, global_counts, keep)
    dropped = torch.zeros(len(labels), dtype=torch.bool)
    dropped[_largest(torch.rand(len(labels), generator=generator), labels, drops)] = True
    return _pruned(torch.zeros_like(dropped), dropped, drops > 0)


def _pruned(first: Tensor, second: Tensor, classes: Tensor) -> Pruned:
    kept, anomalous, redundant, free = (
        torch.nonzero(mask).flatten() for mask in (~(first | second), first, second, classes)
    )
    return Pruned(kept, anomalous, redundant, free)
