"""Attacks of a group that pools its honest updates: min_max, alie, rare_mimic.

The honest clients' updates are not known to the group: it estimates them from its own, as in the agnostic settings of
the papers.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedimb.attacks.base import Attack, AttackSettings, Known, updates_of, weights_from
from fedimb.errors import ConfigError
from fedimb.records import Arrays
from fedimb.registry import register
from fedimb.registry.arguments import Positive


@register("attack", "min_max")
class MinMax(Attack):
    """The mean of the group's updates moved as far as no farther from any of them than two of them are apart.

    Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021, eq. 8 and algorithm 1, aggregator-agnostic, with
    the perturbation against the standard deviation of the updates. All attackers send the same. An attacker alone has
    no distance to hide in and sends its honest update.
    """

    colludes = True

    def __init__(self, settings: AttackSettings, known: Known) -> None:
        super().__init__(settings, known)

    def collude(
        self, received: Arrays, honest: Mapping[int, Arrays], cohort: int, rng: np.random.Generator
    ) -> Mapping[int, Arrays]:
        """See `Attack.collude`."""
        updates = np.stack(list(updates_of(received, honest).values()))
        if len(updates) < 2:
            return honest
        mean, direction = updates.mean(axis=0), -updates.std(axis=0)
        gram = updates @ updates.T
        squares = np.diag(gram)[:, None] + np.diag(gram)[None, :] - 2 * gram
        sent = weights_from(received, mean + _farthest(updates, mean, direction, float(squares.max())) * direction)
        return dict.fromkeys(honest, sent)


def _farthest(updates: np.ndarray, mean: np.ndarray, direction: np.ndarray, most: float) -> float:
    """The largest gamma >= 0 with |mean + gamma d - u|^2 <= ``most`` for every update u [K, P].

    Each bound is a quadratic in gamma that holds at 0, because the mean is nearer to every update than the farthest
    pair is apart; its larger root is exact where the paper bisects.
    """
    square = float(direction @ direction)
    if square == 0:
        return 0.0
    gaps = mean - updates
    linear = gaps @ direction
    rest = (gaps**2).sum(axis=1) - most
    return float(np.min((-linear + np.sqrt(np.maximum(linear**2 - square * rest, 0.0))) / square))


@dataclass(frozen=True)
class AlieSettings(AttackSettings):
    """Settings of `alie`.

    Attributes:
        z: standard deviations from the mean; null: the most that a majority still covers, by the cohort's size.
    """

    z: Positive | None = None


@register("attack", "alie")
class Alie(Attack):
    """The mean of the group's updates minus z standard deviations in every coordinate: within the honest spread.

    Baruch et al., "A Little Is Enough", NeurIPS 2019, algorithm 3: with n clients and m attackers
    s = floor(n / 2 + 1) - m honest ones must look farther out, so z is the quantile (n - m - s) / (n - m) of the
    normal distribution (0 where that is at most one half). All attackers send the same.
    """

    colludes = True
    settings: AlieSettings

    def __init__(self, settings: AlieSettings, known: Known) -> None:
        super().__init__(settings, known)

    def collude(
        self, received: Arrays, honest: Mapping[int, Arrays], cohort: int, rng: np.random.Generator
    ) -> Mapping[int, Arrays]:
        """See `Attack.collude`."""
        updates = np.stack(list(updates_of(received, honest).values()))
        z = alie_z(cohort, len(updates)) if self.settings.z is None else self.settings.z
        sent = weights_from(received, updates.mean(axis=0) - z * updates.std(axis=0))
        return dict.fromkeys(honest, sent)


def alie_z(clients: int, attackers: int) -> float:
    """The z of `Alie` for a cohort of so many clients; at least 0, and 3 where attackers are a majority.

    Example:
        >>> round(alie_z(50, 12), 2)  # the paper's table: n=50, m=12: s = 14, 24 of 38
        0.34
    """
    honest = clients - attackers
    supporters = clients // 2 + 1 - attackers
    share = (honest - supporters) / honest if honest > 0 else 1.0
    if share >= 1:
        return 3.0
    return max(0.0, statistics.NormalDist().inv_cdf(share)) if share > 0 else 0.0


@dataclass(frozen=True)
class MimicSettings(AttackSettings):
    """Settings of `rare_mimic`.

    Attributes:
        factor: length of the reversed rows, in lengths of the honest ones.
    """

    factor: Positive = 1.0


@register("attack", "rare_mimic")
class RareMimic(Attack):
    """Poses as a holder of the minority classes, and reverses what such a holder would teach the last layer.

    For each minority class the group takes the member whose update of that class's row of the head is the longest,
    which is a holder if it has one. Every attacker sends the mean of the group's updates, except that class's row:
    there it sends the holder's, reversed for the weights and as it is for the bias. It looks average, and like a holder
    where an aggregator that gives back to few clients what a median takes from them (`bucketing`, `class_aware_median`)
    looks for holders. Against such aggregators it is what the mimic attack is against a median: Karimireddy et al.,
    "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022, section 3.

    Raises:
        ConfigError: a model whose last layer is not trained.
    """

    colludes = True
    settings: MimicSettings

    def __init__(self, settings: MimicSettings, known: Known) -> None:
        super().__init__(settings, known)
        if not known.head:
            raise ConfigError("attack 'rare_mimic': the model's last layer is not trained; use another model")

    def collude(
        self, received: Arrays, honest: Mapping[int, Arrays], cohort: int, rng: np.random.Generator
    ) -> Mapping[int, Arrays]:
        """See `Attack.collude`."""
        sent = weights_from(received, np.mean(list(updates_of(received, honest).values()), axis=0))
        heads = {c: {k: own[k].astype(np.float64) - received[k] for k in self.known.head} for c, own in honest.items()}
        for rare in self.known.rare:
            holder = max(heads, key=lambda c: float(sum(np.sum(rows[rare] ** 2) for rows in heads[c].values())))
            for key, rows in heads[holder].items():
                sign = -self.settings.factor if rows.ndim > 1 else 1.0
                sent[key][rare] = (received[key][rare] + sign * rows[rare]).astype(sent[key].dtype)
        return dict.fromkeys(honest, sent)
