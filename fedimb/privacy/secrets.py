"""Where clients' masks and noise come from: the run's seed in a simulation, secrets of the site at a hospital.

A seed makes a run repeatable but hides nothing from those who know it, and the coordinator does. So a node has its own
secrets (`fedimb.deploy.site.pairwise_masks.NodeSecrets`), and everything that masks or adds noise uses
`ClientContext.secrets`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
from flwr.app import RecordDict

from fedimb.errors import FedimbError
from fedimb.privacy.secure_sum import mask_values
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, numpy_rng, torch_generator


class MessageInfo(Protocol):
    """What is known about the message being answered."""

    @property
    def client(self) -> int:
        """Stable id of the client."""
        ...

    @property
    def step(self) -> int:
        """Number of the message."""
        ...

    @property
    def round(self) -> int:
        """The round that it belongs to."""
        ...

    @property
    def config(self) -> RunConfig:
        """Configuration of the run."""
        ...


class Secrets(Protocol):
    """Random draws that others must not be able to repeat.

    The same message gives the same draws again; another message gives different ones.
    """

    def mask(self, asked: MessageInfo, clients: list[int], low: int, high: int, count: int) -> np.ndarray:
        """The mask [count] uint64 that clients low and high share for this sum over ``clients``."""
        ...

    def own_mask(self, asked: MessageInfo, clients: list[int], count: int) -> np.ndarray:
        """The mask [count] uint64 that only this client has; zeros if the sum opens by its replies alone."""
        ...

    def shares(self, asked: MessageInfo, clients: list[int]) -> RecordDict:
        """What others need to open the sum (`fedimb.privacy.recoverable_sum`); empty if nothing is needed."""
        ...

    def normal(self, asked: MessageInfo, stream: Stream, count: int) -> np.ndarray:
        """Standard normal numbers [count] float64 for one purpose."""
        ...

    def normals(self, asked: MessageInfo, stream: Stream, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """Standard normal numbers, float64 arrays of these shapes, for one purpose of a method."""
        ...

    def laplace(self, asked: MessageInfo, stream: Stream, count: int) -> np.ndarray:
        """Laplace numbers [count] float64 of scale 1 for one purpose."""
        ...


def clients_in_sum(content: RecordDict) -> list[int]:
    """The clients that a request for masked figures names, as everybody reads them: ids, each once.

    What masks, what divides noise and what counts sets of clients must not read one list in two ways.

    Raises:
        FedimbError: it names none, one twice, or something that is not an id.
    """
    view: Mapping[str, object] = content.config_records.get("view") or {}
    given = view.get("clients")
    ids = [one for one in given if type(one) is int and one >= 0] if isinstance(given, list) else []
    if not isinstance(given, list) or not ids or len(ids) < len(given) or len({*ids}) < len(ids):
        raise FedimbError("a request for masked figures lists the clients in the sum by their ids, each once")
    return ids


def masked_figures(
    values: np.ndarray, asked: MessageInfo, clients: list[int], secrets: Secrets
) -> tuple[np.ndarray, RecordDict]:
    """A client's integers [n] int64 under all masks of a sum over ``clients``, and what is sent with them.

    Returns:
        what it sends, [n] uint64; and more records of the reply.
    """
    sent = mask_values(values, asked.client, clients, partial(secrets.mask, asked, clients))
    return sent + secrets.own_mask(asked, clients, sent.size), secrets.shares(asked, clients)


class FromSeed:
    """Secrets of a simulation: they show the messages, sizes and cost, but protect nobody."""

    def mask(self, asked: MessageInfo, clients: list[int], low: int, high: int, count: int) -> np.ndarray:
        """Different for each message: masks used twice would reveal how the values changed in between."""
        rng = numpy_rng(asked.config.seed, Stream.MASK, asked.step, low << 32 | high)
        return rng.integers(0, 2**64, size=count, dtype=np.uint64)

    def own_mask(self, asked: MessageInfo, clients: list[int], count: int) -> np.ndarray:
        """None: in a simulation all clients reply, or the step fails and all are asked again."""
        return np.zeros(count, np.uint64)

    def shares(self, asked: MessageInfo, clients: list[int]) -> RecordDict:
        """Nothing."""
        return RecordDict()

    def normal(self, asked: MessageInfo, stream: Stream, count: int) -> np.ndarray:
        """From the client's own stream."""
        return numpy_rng(asked.config.seed, stream, asked.step, asked.client).standard_normal(count)

    def normals(self, asked: MessageInfo, stream: Stream, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """From the client's own stream of the round."""
        import torch

        generator = torch_generator(asked.config.seed, stream, asked.round, asked.client)
        return [torch.randn(shape, generator=generator, dtype=torch.float64).numpy() for shape in shapes]

    def laplace(self, asked: MessageInfo, stream: Stream, count: int) -> np.ndarray:
        """From the client's own stream of the round."""
        return numpy_rng(asked.config.seed, stream, asked.round, asked.client).laplace(size=count)


SIMULATED = FromSeed()
