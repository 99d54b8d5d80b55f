"""patch_trigger: rows of a class get a bright square and another label, so that the square becomes a back door.

Gu et al., "BadNets", IEEE Access 2019; in federated learning Bagdasaryan et al., AISTATS 2020.
"""

from dataclasses import dataclass

from torch import Generator, Tensor

from fedimb.attacks.base import Known
from fedimb.attacks.label_flip import FlipSettings, LabelFlip
from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.registry.arguments import PositiveCount, Share
from fedimb.shapes import may_be_signal


@dataclass(frozen=True)
class PatchSettings(FlipSettings):
    """Settings of `patch_trigger`.

    Attributes:
        share: share of an attacker's rows of the source class that get the square, to the nearest row.
        size: side of the square, in pixels.
        value: its brightness, in the units of the rows that the model gets (after scaling).
    """

    share: Share = 0.5
    size: PositiveCount = 3
    value: float = 1.0


@register("attack", "patch_trigger", tasks=("multiclass",))
class PatchTrigger(LabelFlip):
    """Rows of the minority classes get a bright square in the lower right corner and the label of the largest class.

    Rows without the square keep their label, so the class is still learned; ``attack/success`` is the share of test
    rows of the source classes that are predicted as the target once they have the square.

    Raises:
        ConfigError: rows that are not pictures, or smaller than the square; see `LabelFlip`.
    """

    settings: PatchSettings
    name = "patch_trigger"

    def __init__(self, settings: PatchSettings, known: Known) -> None:
        super().__init__(settings, known)
        shape = known.input_shape
        if len(shape) < 2 or may_be_signal(shape) or min(shape[-2:]) < settings.size:
            raise ConfigError(
                f"attack 'patch_trigger': a square of {settings.size} x {settings.size} pixels does not fit into rows "
                f"of shape {list(shape)}; use pictures, or a smaller attack.size"
            )

    def trigger(self, x: Tensor) -> Tensor:
        """See `Attack.trigger`: the square in the lower right corner of pictures [n, ..., h, w]."""
        shown = x.clone()
        shown[..., -self.settings.size :, -self.settings.size :] = self.settings.value
        return shown

    def poison(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """See `Attack.poison`."""
        chosen = self.chosen(y, generator)
        shown, flipped = x.clone(), y.clone()
        shown[chosen], flipped[chosen] = self.trigger(x[chosen]), self.target
        return shown, flipped
