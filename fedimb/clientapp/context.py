"""What the client side of a method sees while it handles one message."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from flwr.app import Context, RecordDict

from fedimb.attacks.base import Attack
from fedimb.data.store import Store
from fedimb.data.views import ClientData, Rows, known_classes
from fedimb.models.base import Classifier
from fedimb.privacy.secrets import SIMULATED, Secrets
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, seed_int, torch_generator
from fedimb.training.forward import Outputs, forward_batched
from fedimb.training.spec import TrainSpec


@dataclass(frozen=True)
class Site:
    """What the client side of a method may know before a run starts.

    Attributes:
        task: ``multiclass`` or ``multilabel``.
        class_names: class names by class id.
        store: the rows on this machine.
    """

    task: str
    class_names: tuple[str, ...]
    store: Store


@dataclass
class ClientContext:
    """What the client side of a method sees while it handles one message.

    Attributes:
        client: stable client id.
        round, step: global training round and message version.
        data: the client's views.
        state: the client's persistent state; change it in place, it is saved if its content changed.
        model: the resident model, loaded with the weights that the message carried, if any.
        config: the resolved run configuration.
        counts: class counts [C] that the class prior is computed from, or None.
        content: everything the message carried.
        outputs: rows and outputs of the forward passes already done, by view; see `forward`. Those done ahead are from
            before the methods set their views.
        training: function behind `spec`.
        secrets: source of masks and noise; a hospital has its own.
        attack: what this simulated client does instead of what it should; None: it is honest.
        untrained: whether the model in front of it has a part that stays at this client and was never trained: its
            predictions mean nothing.
        resampled: rows and classes after the run's resampler, once made (`fedimb.clientapp.resampling`).
    """

    client: int
    round: int
    step: int
    data: ClientData
    state: RecordDict
    model: Classifier
    config: RunConfig
    counts: np.ndarray | None
    content: RecordDict = field(default_factory=RecordDict)
    outputs: dict[str, tuple[Rows, Outputs]] = field(default_factory=dict)
    training: Callable[["ClientContext"], TrainSpec] | None = None
    secrets: Secrets = SIMULATED
    attack: Attack | None = None
    untrained: bool = False
    resampled: tuple[torch.Tensor, torch.Tensor] | None = None

    def class_counts(self, view: str) -> np.ndarray:
        """Class counts [C] int64 of a view, as the client reports them."""
        return self.claimed(self.data.counts(view))

    def claimed(self, counts: np.ndarray) -> np.ndarray:
        """Class counts [C] int64 as the client reports them, from the true ones: a simulated attacker may lie."""
        return counts if self.attack is None else self.attack.counts(counts)

    def forward(self, view: str) -> Outputs:
        """Features [m, d] and logits [m, C] float32 of a view's rows under the received weights, without gradients.

        Call it before training and before `ClientData.set_view`. Where the engine serves many clients, their rows may
        have gone through the model together, with the same result.
        """
        rows = self.data.rows(view)
        if view not in self.outputs or not np.array_equal(self.outputs[view][0], rows):
            self.outputs[view] = rows, forward_batched(self.model, self.data.tensors(view)[0])
        return self.outputs[view][1]

    def scored(self, view: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels and logits of the rows of a view that can be right or wrong, for a confusion matrix; see `forward`.

        A row with a coarse label has no true class to be counted under, and is left out; unknown cells of rows with
        several labels are left out by `fedimb.evaluation.confusion.confusion_of`.
        """
        y, logits = self.data.tensors(view)[1], self.forward(view)[1]
        known = known_classes(y, logits.shape[1])
        return (y, logits) if known is None else (y[known], logits[known])

    def steps_over(self, view: str) -> int:
        """Number of local steps in the configured epochs over a view's rows."""
        local = self.config.local
        return local.epochs * math.ceil(len(self.data.rows(view)) / local.batch_size)

    def spec(self) -> TrainSpec:
        """Local training as the run configures it, for a method that trains while handling a query.

        Its learning rate is ``local.lr``: schedules are of the rounds.
        """
        assert self.training is not None
        return self.training(self)

    def generator(self, stream: Stream = Stream.METHOD, device: torch.device | str = "cpu") -> torch.Generator:
        """This client's own generator for this round and purpose; a GPU draws other numbers than the CPU."""
        return torch_generator(self.config.seed, stream, self.round, self.client, device)

    def rng(self, stream: Stream = Stream.METHOD) -> np.random.Generator:
        """As `generator`, for NumPy."""
        return np.random.default_rng(seed_int(self.config.seed, stream, self.round, self.client))


def client_id(context: Context) -> int:
    """The stable client id of the node that handles a message."""
    return int(context.node_config["partition-id"])
