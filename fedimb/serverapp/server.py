"""The server's own rows and training, for methods that train at the server."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.config.parts import build_model, seeded, spec_of_rows
from fedimb.config.site_models import kind_configs, kinds_of
from fedimb.data.federation import Federation, Phases
from fedimb.data.public import PublicRows, public_rows
from fedimb.models.base import Classifier, buffers_of, load_into, parameters_of
from fedimb.records import Arrays
from fedimb.schema import RunConfig, calibration_part
from fedimb.seeds import Stream, seed_int, torch_generator
from fedimb.training.distillation import SoftTargets, distil
from fedimb.training.forward import Outputs, forward_batched
from fedimb.training.local import train_locally
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec


class Server:
    """The server's own rows and training, as the run is configured.

    Args:
        config: resolved run configuration.
        federation: source of the public rows, classes and input shape.
    """

    def __init__(self, config: RunConfig, federation: Federation) -> None:
        self._config, self._federation = config, federation
        self._public: PublicRows | None = None
        self._steps = 0

    def count_steps(self, steps: int) -> None:
        """Count optimiser steps that a method takes at the server by itself; `train` and `distil` count their own."""
        self._steps += steps

    def take_steps(self) -> int:
        """Optimiser steps at the server since the last call."""
        taken, self._steps = self._steps, 0
        return taken

    def public(self) -> PublicRows:
        """The server's labelled rows, opened once. Raises ConfigError if ``data.public`` is not set."""
        if self._public is None:
            self._public = public_rows(self._federation)
        return self._public

    def has_public(self) -> bool:
        """Whether the server has public rows."""
        return len(self._federation.public) > 0

    def clips(self) -> bool:
        """Whether clients clip their updates (``privacy.clip``): then no other record may reveal what was learned."""
        return self._config.privacy.clip is not None

    def domains(self) -> tuple[str, ...]:
        """Names of the source's sites (devices); empty if it has none."""
        return self._federation.domains

    def phases(self) -> Phases:
        """Class ids of each phase in which classes appear; empty if all are there from the start."""
        return self._federation.phases

    def rounds(self) -> int:
        """Configured training rounds."""
        return self._config.rounds

    def timed(self) -> bool:
        """Whether a simulated clock runs beside the rounds."""
        return bool(self._config.pace.get("clock"))

    def tests(self) -> bool:
        """Whether the server has test rows, so that a model can be scored after any round."""
        return len(self._federation.test) > 0

    def holders(self) -> list[int]:
        """Ids of the clients with rows to train on."""
        return [int(client) for client in np.flatnonzero(self._federation.train_sizes)]

    def annotated(self) -> NDArray[np.bool_] | None:
        """[K, C]: which client annotates which class; None: every client annotates all."""
        spaces = self._federation.labels
        return None if spaces is None else spaces.annotated

    def full_counts(self, known: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows of each class [C] that clients' labels name -> rows as if every client annotated every class.

        The same where all do; see `fedimb.data.label_spaces.LabelSpaces.full_counts`.
        """
        spaces = self._federation.labels
        return known if spaces is None else spaces.full_counts(known)

    def pairs(self) -> dict[int, str]:
        """Public keys for masks by client id; empty in a simulation, whose masks come from the seed."""
        return self._federation.pairs

    def deployed(self) -> bool:
        """Whether the clients are hospitals, whose rows this server does not have."""
        return bool(self._federation.client_names)

    def class_names(self) -> tuple[str, ...]:
        """Class names by class id."""
        return self._federation.class_names

    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self._federation.input_shape

    def model(self, weights: Arrays | None = None) -> Classifier:
        """The configured model: with the run's initial weights, or with ``weights`` (parameters and buffers)."""
        model = build_model(self._config, self._federation.n_classes, self._federation.input_shape)
        if weights is not None:
            load_into(model, {name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        return model

    def networks(self) -> dict[str, Classifier]:
        """A model of every kind of network that clients may train (``clients.models``), by the kind's name."""
        shape = self._federation.n_classes, self._federation.input_shape
        return {kind: build_model(own, *shape) for kind, own in kind_configs(self._config).items()}

    def kind_of(self, client: int) -> str:
        """The kind of network that a client trains, as in `networks`."""
        federation = self._federation
        return kinds_of(self._config, federation.n_clients, federation.sites_of)[client]

    def asks_clients(self) -> bool:
        """Whether clients score the final model on their validation rows, at the end."""
        return not len(self._federation.test) or self._config.evaluation.temperature

    def calibrations(self) -> tuple[str, ...]:
        """Names of the run's calibrations."""
        return tuple(calibration_part(name) for name in self._config.calibration)

    def averages_alike(self) -> bool:
        """Whether different networks share their first layers (``clients.models.average=alike``)."""
        models = self._config.clients.models
        return models is not None and models.average == "alike"

    def train(self, model: Classifier, x: Tensor, y: Tensor, epochs: int, purpose: int = 0) -> Arrays:
        """Train on rows x [n, *shape] float32, y [n] int64 with the clients' optimiser, batch, loss and augmentation.

        The loss's prior is the class counts of these rows. ``purpose`` distinguishes several trainings of a run.

        Returns:
            Parameters and buffers, which are also in the model.
        """
        config = self._config
        counts = np.bincount(y.numpy(), minlength=self._federation.n_classes).astype(np.int64)
        steps = epochs * -(-len(y) // config.local.batch_size)
        spec = spec_of_rows(config, counts, steps, self.input_shape())
        with seeded(seed_int(config.seed, Stream.METHOD, 0, purpose)):
            done = train_locally(model, x, y, spec, torch_generator(config.seed, Stream.METHOD, 1, purpose))
        self.count_steps(done.steps)
        return {**parameters_of(model), **buffers_of(model)}

    def distil(
        self, model: Classifier, loss: SoftTargets, epochs: int, lr: float, batch_size: int, purpose: int
    ) -> Arrays:
        """Train a model with Adam on what is taught about the public rows; rows of weight 0 do not count.

        Args:
            purpose: distinguishes several trainings of a run.

        Returns:
            Its parameters, which are also in the model.
        """
        steps = epochs * -(-int((loss.weights > 0).sum()) // batch_size)
        spec = TrainSpec("", steps, batch_size, "adam", lr, 0.0, 0.0, loss, Shuffle())
        with seeded(seed_int(self._config.seed, Stream.METHOD, 0, purpose)):
            generator = torch_generator(self._config.seed, Stream.METHOD, 1, purpose)
            done = distil(model, self.public().x, loss, spec, generator)
        self.count_steps(done.steps)
        return parameters_of(model)

    def outputs(self, model: Classifier, x: Tensor) -> Outputs:
        """Features [n, d] and logits [n, C] of rows, without gradients."""
        return forward_batched(model, x)
