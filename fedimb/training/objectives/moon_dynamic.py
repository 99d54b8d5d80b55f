"""HeroCrystal's model-contrastive term, whose direction changes over the rounds.

HeroCrystal (arXiv 2605.02169). With both references loaded, which the authors' release does not do: there the received
and the previous model are the same pretrained network, so that the two similarities are equal, and the term is the
constant mu log 2 without a gradient. Features are the pooled ones of `Classifier.features`.
"""

from typing import Any, Literal

from flwr.app import RecordDict
from torch import Tensor, nn

from fedimb.contracts.platform import STEP
from fedimb.registry import register
from fedimb.training.objectives.moon import Moon

Direction = Literal["moon", "inverse", "dynamic"]


@register(
    "objective",
    "moon_dynamic",
    stackable=False,
    keeps_state=True,
    tasks=("multiclass", "multilabel"),
    unknown_labels=("cells", "coarse"),
)
class MoonDynamic(Moon):
    """`fedimb.training.objectives.moon.Moon` with a choice of direction.

    ``moon`` pulls features towards the received model's and away from those of the client's previous one; ``inverse``
    the other way round; ``dynamic`` is nothing in the first round, inverse in the second, and moon from the third on.

    Args:
        mu: strength, >= 0 and finite.
        temperature: T, > 0 and finite.
        direction: ``moon``, ``inverse`` or ``dynamic``.

    Raises:
        ConfigError: another mu or temperature.
    """

    def __init__(self, mu: float = 0.5, temperature: float = 0.5, direction: Direction = "dynamic") -> None:
        super().__init__(mu, temperature)
        self.direction = direction
        self._round = 1

    def receive(self, content: RecordDict, state: RecordDict) -> None:
        """Look up the previous local model, and which round this is."""
        super().receive(content, state)
        step: dict[str, Any] = dict(content.config_records[STEP]) if STEP in content else {}
        self._round = int(step.get("round", 1))

    def inverse(self) -> bool:
        """Whether this round's positive is the previous model."""
        return self.direction == "inverse" or (self.direction == "dynamic" and self._round == 2)

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Copy both references, unless the term is off in this round."""
        if self.direction == "dynamic" and self._round < 2:
            return
        super().setup(model, parameters)

    def on_batch(self, inputs: Tensor) -> None:
        """Compute both references' features [b, d], the positive's first."""
        super().on_batch(inputs)
        if self._seen is not None and self.inverse():
            self._seen = self._seen[1], self._seen[0]
