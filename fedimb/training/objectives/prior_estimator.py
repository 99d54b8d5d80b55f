"""NPE-LA: the head learns the class prior from the labels it sees, without counts, and corrects its logits by it.

"Neural Prior Estimator", arXiv 2602.17853: a second linear layer h of the features is trained with
softplus(h(z)_y), binary cross-entropy towards 0 of the label's unit alone. Frequent classes are pushed down more often,
so that under equal features h_c goes towards -log pi_c plus a constant. Predictions use z + h - mean_c h. The layer is
part of the model (``model.head=npe``) and averaged with it: what travels is a prior learned by all clients, and no
counts do. The features are trained by this term too, as in the paper's code.
"""

import math

from torch import Tensor, nn
from torch.nn.functional import softplus

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.models.heads import NeuralPriorHead
from fedimb.registry import register
from fedimb.training.objectives.base import LocalObjective


@register("objective", "prior_estimator", stackable=False, adjusts_logits=True, needs_head="npe")
class PriorEstimator(LocalObjective):
    """Adds weight times the batch mean of softplus(h(z)_y), h the prior estimator of ``model.head=npe``.

    Args:
        weight: > 0 and finite; the paper's is 1.

    Raises:
        ConfigError: any other weight.
    """

    def __init__(self, weight: float = 1.0) -> None:
        if not 0 < weight < math.inf:
            raise ConfigError(f"objective 'prior_estimator': weight must be > 0 and finite; got {weight}")
        self.weight = weight

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted term, a scalar."""
        assert isinstance(model, Classifier)
        assert isinstance(model.head, NeuralPriorHead)  # flag needs_head
        of_label = model.head.estimator(features).gather(1, labels[:, None])
        return self.weight * softplus(of_label).mean()
