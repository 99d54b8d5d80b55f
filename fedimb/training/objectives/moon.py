"""MOON's model-contrastive term.

Li, He and Song, "Model-Contrastive Federated Learning", CVPR 2021, eq. 3: features are pulled towards those of the
received model and away from those of the client's own previous model. The paper contrasts the output of a projection
head; here it is `Classifier.features`, so that the model is the same as every other method's.
"""

import copy
import math

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, softplus

from fedimb.errors import ConfigError
from fedimb.models.base import Classifier, buffers_of, load_into, parameters_of
from fedimb.records import array_record, to_numpy
from fedimb.registry import register
from fedimb.training.objectives.base import LocalObjective, trained_model

_STATE = "term.moon"


@register(
    "objective",
    "moon",
    stackable=False,
    keeps_state=True,
    tasks=("multiclass", "multilabel"),
    unknown_labels=("cells", "coarse"),
)
class Moon(LocalObjective):
    """Adds mu times the batch mean of -log(e^{s_g/T} / (e^{s_g/T} + e^{s_p/T})) = softplus((s_p - s_g)/T), where s_g
    and s_p are the cosine similarities of a row's features to those of the received and of the previous local model
    (both in evaluation mode).

    The previous local model stays at the client, in its state. In a client's first round with a model it does not
    exist: the positive is then the only candidate, its softmax is 1 and the term is 0.

    Args:
        mu: strength, >= 0 and finite.
        temperature: T, > 0 and finite.

    Raises:
        ConfigError: any other mu or temperature.
    """

    def __init__(self, mu: float = 1.0, temperature: float = 0.5) -> None:
        if not 0 <= mu < math.inf:
            raise ConfigError(f"objective 'moon': mu must be >= 0 and finite; got {mu}")
        if not 0 < temperature < math.inf:
            raise ConfigError(f"objective 'moon': temperature must be > 0 and finite; got {temperature}")
        self.mu, self.temperature = mu, temperature
        self._key = f"{_STATE}/global/0"
        self._weights: dict[str, Tensor] | None = None
        self._trained: dict[str, np.ndarray] | None = None
        self._models: tuple[Classifier, Classifier] | None = None
        self._seen: tuple[Tensor, Tensor] | None = None

    def receive(self, content: RecordDict, state: RecordDict) -> None:
        """Look up the previous local model for the weights of this message."""
        self._key = f"{_STATE}/{trained_model(content)}"
        if self._key in state:
            kept = to_numpy(state.array_records[self._key])
            self._weights = {name: torch.from_numpy(value) for name, value in kept.items()}

    def setup(self, model: nn.Module, parameters: list[Tensor]) -> None:
        """Copy the received model and the previous model, if there is one."""
        if self._weights is None or not self.mu or not isinstance(model, Classifier):
            return
        received, previous = (copy.deepcopy(model).eval().requires_grad_(False) for _ in range(2))
        load_into(previous, self._weights)
        self._models = received, previous

    @torch.no_grad()
    def on_batch(self, inputs: Tensor) -> None:
        """Compute both models' features [b, d]."""
        if self._models is not None:
            received, previous = self._models
            self._seen = received.features(inputs), previous.features(inputs)

    def loss(self, model: nn.Module, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor | None:
        """The contrastive term, or None in the first round."""
        if self._seen is None:
            return None
        towards, away = (cosine_similarity(features, other, dim=1) for other in self._seen)
        return self.mu * softplus((away - towards) / self.temperature).mean()

    def after(self, model: nn.Module, steps: int) -> dict[str, dict[str, np.ndarray]]:
        """Nothing is sent; the trained weights are kept."""
        trained = parameters_of(model) | buffers_of(model)
        if all(np.isfinite(value).all() for value in trained.values()):  # otherwise features would stay NaN
            self._trained = trained
        return {}

    def keep(self, state: RecordDict) -> None:
        """Keep the trained model and remove earlier ones of the same name."""
        if self._trained is None:
            return
        name = self._key.rpartition("/")[0]
        for old in [key for key in state if key.rpartition("/")[0] == name]:
            del state[old]
        state[self._key] = array_record(self._trained)
