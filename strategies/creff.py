"""CReFF: the classifier is re-trained at the server on synthetic features whose gradients match the clients'.

Shang et al., IJCAI 2022; the equations are in `fedimb.training.gradient_matching`. Before every round all clients
report, for the global body and the head re-trained last, the gradient of each class (`x.creff_gradients`). The server
averages a class's gradients equally over the clients that hold it, moves that class's features to match them, and
fits a new head, drawn anew, to all features. Training goes on from the averaged body and its own head; the new head
goes out for the gradients only, and is the model's at the end (a `Replace`, scored as a separate round).

A class that no client reports keeps its features, which are noise until somebody has reported it, and stays in the new
head's training. A client's gradient is over all rows of a class; the paper's code draws ten times 32 of them with an
augmentation seeded by the clock.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.contracts.creff import GRADIENTS, GRADIENTS_OF, HEAD, CreffSettings
from fedimb.errors import ConfigError
from fedimb.records import array_record, arrays_of
from fedimb.registry import register
from fedimb.seeds import Stream, torch_generator
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.server import Server
from fedimb.serverapp.steps import Query, Replace, Reply, Rounds, ServerWork
from fedimb.strategies.base import KeepsWeights, Program, refuse_inner_method, refuse_without_linear_head
from fedimb.training.gradient_matching import drawn_head, fit_head, match_gradients


def mean_gradients(found: Sequence[dict[str, np.ndarray]]) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The classes' gradients averaged equally over the clients that hold them, and [C] bool: whether any does.

    Args:
        found: ``weight`` [C, C, d] and ``bias`` [C, C] of each client; a class is held where its bias' is not all 0.
    """
    weight, bias = (np.stack([one[part] for one in found]).astype(np.float64) for part in ("weight", "bias"))
    holders = (bias != 0).any(axis=2).sum(axis=0)
    by = np.maximum(holders, 1)
    mean = weight.sum(axis=0) / by[:, None, None], bias.sum(axis=0) / by[:, None]
    return (torch.from_numpy(mean[0]), torch.from_numpy(mean[1])), torch.from_numpy(holders > 0)


@register("strategy", "creff", adjusts_logits=True, innermost=True, builds_head=True)
class Creff(KeepsWeights):
    """CReFF: the classifier is re-trained at the server on synthetic features whose gradients match the clients'.

    Args:
        inner: the aggregator of the rounds.
        settings: a `CreffSettings`; or give its fields by name: ``Creff(FedAvg(), per_class=20)``.

    Attributes:
        memory: the features, the head re-trained last, and the weights aggregated last.
    """

    def __init__(self, inner: Strategy, settings: CreffSettings | None = None, **fields: Any) -> None:
        super().__init__(inner)
        self.settings = CreffSettings.of(settings, fields)
        refuse_inner_method("creff", inner)

    def check_server(self, server: Server) -> None:
        """Refuse a model without a linear head that has a bias."""
        refuse_without_linear_head("creff", server.model())

    def program(self, run: RunContext) -> Program:
        """Gradients, features and a new head before every round; the new head becomes the model's at the end."""
        if run.server is None:
            raise ConfigError("strategy=creff needs fedimb's own server: run it with fedimb, not in a plain ServerApp")
        width = run.server.model().head.in_features
        for number in range(1, run.rounds + 1):
            if number == 1:
                self._begin(run, width)
            head = {part: np.asarray(self.memory[part], np.float32) for part in ("weight", "bias")}
            replies = yield Query(GRADIENTS_OF, RecordDict({HEAD: array_record(head)}), model="global")
            yield ServerWork("creff_head", self._work(run, run.server, number, replies))
            yield Rounds(1)
        made = {f"head.{part}": np.asarray(self.memory[part], np.float32) for part in ("weight", "bias")}
        yield Replace(self.aggregated(run.server) | made)

    def _begin(self, run: RunContext, width: int) -> None:
        """Features of noise and a random head, unless a resumed run has its own."""
        if "features" in self.memory:
            return
        generator = torch_generator(run.seed, Stream.METHOD)
        shape = (run.n_classes, self.settings.per_class, width)
        weight, bias = drawn_head(run.n_classes, width, generator)
        self.memory["features"] = torch.randn(shape, generator=generator).numpy()
        self.memory |= {"weight": weight.numpy(), "bias": bias.numpy()}

    def _work(self, run: RunContext, server: Server, number: int, replies: Sequence[Reply]) -> Any:
        """Work at the server: move the features to match the gradients, and fit a new head to them."""

        def work() -> RecordDict | None:
            own, generator = self.settings, torch_generator(run.seed, Stream.METHOD, number)
            features = torch.from_numpy(np.asarray(self.memory["features"]).copy())
            head = tuple(torch.from_numpy(np.asarray(self.memory[part]).copy()) for part in ("weight", "bias"))
            (of_weight, of_bias), held = mean_gradients([arrays_of(reply.content, GRADIENTS) for reply in replies])
            wanted = of_weight.float(), of_bias.float()
            features = match_gradients(features, wanted, held, (head[0], head[1]), own.match_steps, own.match_lr)
            count = features.shape[0] * features.shape[1]
            batches: list[torch.Tensor] = []
            for _ in range(own.head_epochs):
                batches += torch.randperm(count, generator=generator).split(own.head_batch)
            start = drawn_head(features.shape[0], features.shape[2], generator)
            weight, bias = fit_head(start, features, batches, own.head_lr)
            server.count_steps(own.match_steps * int(held.sum()) + len(batches))
            self.memory |= {"features": features.numpy(), "weight": weight.numpy(), "bias": bias.numpy()}
            return None

        return work
