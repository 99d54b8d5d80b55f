"""BalanceFL's knowledge inheritance: what the received model says of the classes that a batch lacks.

Shuai et al., "BalanceFL", IPSN 2022; for the classification part see the loss `batch_restricted_ce`.
"""

import math

from torch import Tensor, nn

from fedimb.errors import ConfigError
from fedimb.registry import register
from fedimb.training.losses.batch_restricted_ce import classes_of
from fedimb.training.objectives.distil import Distil


@register("objective", "inherit", stackable=False, needs_loss=("batch_restricted_ce",))
class Inherit(Distil):
    """Adds weight mean_i (-sum_c q_ic log p_ic) over the classes c that the batch lacks, p and q the softmax over these
    classes of logits / T of the model trained and of the model received (in evaluation mode; without T^2), minus
    ``entropy`` times the entropies of the softmax over the classes of the batch, summed over its rows.

    The sum makes the entropy's influence grow with the batch, as in the paper's code. A batch with all classes has
    nothing to inherit. Unlike `Distil` with ``absent_only`` the classes are those of the batch.

    Args:
        weight: lambda, >= 0 and finite.
        temperature: T, > 0 and finite.
        entropy: weight of the entropy, >= 0 and finite.

    Raises:
        ConfigError: any other value.
    """

    def __init__(self, weight: float = 1.0, temperature: float = 2.0, entropy: float = 0.002) -> None:
        super().__init__(weight, temperature)
        if not 0 <= entropy < math.inf:
            raise ConfigError(f"objective 'inherit': entropy must be >= 0 and finite; got {entropy}")
        self.entropy = entropy

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """The weighted sum of both parts, or None if both weights are 0."""
        if self._teacher is None and not self.entropy:
            return None
        held = classes_of(labels, logits.shape[1])
        own = logits[:, held].log_softmax(1)
        value = self.entropy * (own.exp() * own).sum()
        if self._teacher is None or bool(held.all()):
            return value
        ours, theirs = (z[:, ~held] / self.temperature for z in (logits, self._target))
        return value - self.weight * (theirs.softmax(1) * ours.log_softmax(1)).sum(1).mean()
