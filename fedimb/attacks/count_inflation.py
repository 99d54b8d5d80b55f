"""count_inflation: a false number of rows, to weigh more in the mean and in the class prior."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedimb.attacks.base import Attack, AttackSettings, Known, known_class
from fedimb.registry import register
from fedimb.registry.arguments import Range


@dataclass(frozen=True)
class InflationSettings(AttackSettings):
    """Settings of `count_inflation`.

    Attributes:
        factor: the claimed rows, in multiples of the true ones.
        declared: whether the attackers were approved with the false number, as a site's rows are its own word; if not,
            a claim above the approved rows is refused on arrival and the client set aside.
        class_id: id of the class that all its rows are claimed to be of, in class counts; null: the largest class.
    """

    factor: Annotated[float, Range(1)] = 10.0
    declared: bool = True
    class_id: int | None = None


@register("attack", "count_inflation", forges_counts=True)
class CountInflation(Attack):
    """Claims many times its rows, all of one class.

    Weights in the mean follow the claimed rows (not with ``aggregation_weight=uniform``), and so do the class counts
    that losses and calibrations use. What bounds it: the rows in the plan, and ``clients.max_weight_share``.

    Raises:
        ConfigError: a class that does not exist.
    """

    settings: InflationSettings

    def __init__(self, settings: InflationSettings, known: Known) -> None:
        super().__init__(settings, known)
        known_class("count_inflation", "class_id", settings.class_id, known)

    def weight(self, weight: float) -> float:
        """See `Attack.weight`."""
        return weight * self.settings.factor

    def rows(self, rows: int) -> int:
        """See `Attack.rows`."""
        return int(np.ceil(rows * self.settings.factor)) if self.settings.declared else rows

    def counts(self, counts: np.ndarray) -> np.ndarray:
        """See `Attack.counts`."""
        claimed = np.zeros_like(counts)
        one = self.known.common if self.settings.class_id is None else self.settings.class_id
        claimed[one] = int(counts.sum() * self.settings.factor)
        return claimed
