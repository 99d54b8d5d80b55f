"""label_flip: rows of the minority classes are given another label.

Tolpegin et al., "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020: attackers flip the labels
of a source class to a target class. Against a rare class a fraction of a percent of all labels is enough, while the
accuracy falls by no more than the class's share of the rows, "Poisoned Acoustics" (arXiv 2602.22258).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from fedimb.attacks.base import Attack, AttackSettings, Known, known_class
from fedimb.errors import ConfigError
from fedimb.records import Arrays
from fedimb.registry import register
from fedimb.registry.arguments import Positive, Share


@dataclass(frozen=True)
class FlipSettings(AttackSettings):
    """Settings of an attack on the training rows of a class.

    Attributes:
        source: id of the class whose rows are changed; null: all minority classes.
        target: id of the class they are labelled as; null: the class with most rows.
        share: share of an attacker's rows of the source class that are changed, to the nearest row.
        scale: the update is multiplied by this before it is sent (Bagdasaryan et al., AISTATS 2020: boosting).
    """

    source: int | None = None
    target: int | None = None
    share: Share = 1.0
    scale: Positive = 1.0


@register("attack", "label_flip", tasks=("multiclass",))
class LabelFlip(Attack):
    """Rows of the minority classes are labelled as the largest class.

    Only training labels are changed: the class counts and validation scores that an attacker sends are of its true
    labels.

    Raises:
        ConfigError: a class that does not exist, or a target among the source classes.
    """

    settings: FlipSettings
    name = "label_flip"

    def __init__(self, settings: FlipSettings, known: Known) -> None:
        super().__init__(settings, known)
        known_class(self.name, "source", settings.source, known)
        known_class(self.name, "target", settings.target, known)
        self.source = known.rare if settings.source is None else (settings.source,)
        self.target = known.common if settings.target is None else settings.target
        if self.target in self.source:
            raise ConfigError(
                f"attack '{self.name}': the target class {self.target} is among the source classes "
                f"{', '.join(map(str, self.source))}; set another attack.target"
            )

    def aim(self) -> tuple[tuple[int, ...], int]:
        """See `Attack.aim`."""
        return self.source, self.target

    def chosen(self, y: Tensor, generator: Generator) -> Tensor:
        """Positions int64 of the rows that are changed, out of y [m] int64."""
        held = torch.isin(y, torch.tensor(self.source, device=y.device)).nonzero().flatten().cpu()
        count = round(self.settings.share * len(held))
        return held[torch.randperm(len(held), generator=generator)[:count]].to(y.device)

    def poison(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """See `Attack.poison`."""
        flipped = y.clone()
        flipped[self.chosen(y, generator)] = self.target
        return x, flipped

    def update(self, received: Arrays, trained: Arrays, rng: np.random.Generator) -> Arrays:
        """See `Attack.update`."""
        return scaled(received, trained, self.settings.scale)


def scaled(received: Arrays, trained: Arrays, factor: float) -> Arrays:
    """received + factor * (trained - received), in the dtypes of ``trained``; ``trained`` itself for factor 1."""
    if factor == 1:
        return trained
    changed = {k: received[k] + factor * (v.astype(np.float64) - received[k]) for k, v in trained.items()}
    return {k: v.astype(trained[k].dtype) for k, v in changed.items()}
