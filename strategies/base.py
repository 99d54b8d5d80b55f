"""The server side of a method: a Flower `Strategy` that wraps an inner one and adds a program of named steps.

```python
class Mine(Method):
    def program(self, run):
        replies = yield Query("mine_profile")
        yield Query("mine_prune", pool(replies))
        yield from self.inner_program(run)
```

fedimb's loop executes the program. As a Flower Strategy, a method also works on its own: `start` runs it in a plain
ServerApp over any Grid, with clients that answer ``train`` (and this method's queries).
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from numpy.typing import NDArray

from fedimb.errors import ConfigError
from fedimb.models.base import parameters_of
from fedimb.plain import StateDict
from fedimb.privacy.secure_sum import unmasked_sum
from fedimb.records import arrays_of, to_numpy
from fedimb.serverapp.steps import Query, Replace, Reply, Rounds, Step, masked_request

if TYPE_CHECKING:
    from fedimb.models.base import Classifier
    from fedimb.serverapp.context import RunContext
    from fedimb.serverapp.server import Server

Program = Generator[Step, Any, None]


class Method(Strategy):
    """Base class of every method's server side. All five Flower hooks go to the inner strategy unless overridden.

    Args:
        inner: the strategy this one wraps: an aggregator or another method (passed by fedimb).

    Attributes:
        memory: a dict for what the method must remember; saved with every step and checkpoint.
        transient: names of attributes that need not be saved, because every round sets them before it reads them.
    """

    transient: ClassVar[tuple[str, ...]] = ()

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner
        self.memory: dict[str, np.ndarray | float] = {}

    def state_dict(self) -> StateDict:
        """What must survive if the process is killed, by attribute name: ``memory``, and what a subclass adds to it, as
        in ``return super().state_dict() | {"seen": self.seen}``.

        What it may contain: see `fedimb.serverapp.state_dict`. An attribute that changes during a step and is missing
        here ends the run at the first checkpoint.
        """
        return {"memory": self.memory}

    def load_state_dict(self, state: StateDict) -> None:
        """Put every item of a `state_dict` back into the attribute of its name; override if that is not enough."""
        for name, value in state.items():
            setattr(self, name, value)

    def check(self, rounds: int) -> None:
        """Called once before a run starts: refuse settings that do not fit the number of rounds (ConfigError)."""

    def check_server(self, server: "Server") -> None:
        """Called once before a run starts, at the server: refuse what its own rows do not allow (ConfigError)."""

    def inner_rounds(self, rounds: int) -> int:
        """How many of these rounds the inner method trains at a stretch; passed to its `check`."""
        return rounds

    def shortest(self) -> int:
        """The fewest rounds whose last one is like those of a full run; a time estimate runs this many."""
        return self.inner.shortest() if isinstance(self.inner, Method) else 2

    def program(self, run: "RunContext") -> Program:
        """The steps of the run. Default: those of the inner method, or all training rounds."""
        yield from self.inner_program(run)

    def inner_program(self, run: "RunContext") -> Program:
        """The wrapped method's program; for an aggregator: ``Rounds(run.rounds)``."""
        if isinstance(self.inner, Method):
            yield from self.inner.program(run)
        else:
            yield Rounds(run.rounds)

    def before_aggregation(self, server_round: int, replies: Sequence[Reply]) -> None:
        """Receive the records described in `on_train_replies`, before the aggregator gets the round's updates."""

    def on_train_replies(self, server_round: int, replies: Sequence[Reply]) -> dict[str, float]:
        """Receive, after aggregation, the records ``x.*`` of the usable train replies, sorted by client id.

        Returns:
            metrics to log with the round, e.g. ``{"data/labelled": 40.0}``.
        """
        return {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Flower's hook."""
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's hook."""
        return self.inner.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Flower's hook."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Flower's hook."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Flower's hook."""
        self.inner.summary()

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the method in a plain ServerApp, as any Flower strategy: same arguments, same Result.

        Nothing is stored, and the run cannot be resumed: use ``fedimb run`` for that.
        """
        from fedimb.serverapp.plain_server import start

        return start(self, grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)


_KEPT = "kept."
_HEAD = ("head.weight", "head.bias")


class KeepsWeights(Method):
    """A method whose server makes a part of the model: it keeps the weights aggregated last, in ``memory``."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The inner strategy's; the weights are kept."""
        merged, metrics = super().aggregate_train(server_round, replies)
        if merged is not None:
            self.memory |= {_KEPT + name: value for name, value in to_numpy(merged).items()}
        return merged, metrics

    def kept_program(self, run: "RunContext") -> Program:
        """The inner program; weights that it replaces the model's by are kept, as those aggregated are."""
        inner, result = self.inner_program(run), None
        while True:
            try:
                step = inner.send(result)
            except StopIteration:
                return
            if isinstance(step, Replace) and step.model == "global":
                step = Replace(self.replaced(step.weights))
                self.memory |= {_KEPT + name: np.asarray(value) for name, value in step.weights.items()}
            result = yield step

    def replaced(self, weights: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Weights that the inner method made, as they are to be; override to change them."""
        return weights

    def aggregated(self, server: "Server") -> dict[str, np.ndarray]:
        """The global model's parameters as aggregated last, or its initial ones if no round had a reply."""
        start = parameters_of(server.model())
        return {name: np.asarray(self.memory.get(_KEPT + name, value), value.dtype) for name, value in start.items()}


def masked_total(
    run: "RunContext", server: "Server", query: Query, key: str
) -> Generator[Step, Any, NDArray[np.int64]]:
    """Sub-program: the sum over all clients with rows of the one array in their masked records, of its shape.

    Args:
        query: without the request for masks.
        key: of the record.
    """
    aside = run.aside()
    clients = [client for client in server.holders() if client not in aside]
    query.content.update(masked_request("trained_on", clients, server.pairs()))
    replies = yield Query(query.name, query.content, query.model, everyone=True)
    sent = [next(iter(arrays_of(reply.content, key).values())) for reply in replies]
    return unmasked_sum(np.stack([one.ravel() for one in sent])).reshape(sent[0].shape)


def sent_along(messages: Iterable[Message], key: str, record: ArrayRecord) -> list[Message]:
    """Train messages that also carry a record, the same object in all of them."""
    made = list(messages)
    for message in made:
        message.content = RecordDict({**message.content, key: record})
    return made


def refuse_inner_method(method: str, inner: Strategy) -> None:
    """Refuse a method inside one that runs its rounds itself (flag ``innermost``).

    Raises:
        ConfigError: says where to name it.
    """
    if isinstance(inner, Method):
        raise ConfigError(
            f"strategy '{method}' runs its rounds itself and cannot wrap another method: name it last of several"
        )


def refuse_without_linear_head(method: str, model: "Classifier") -> None:
    """Refuse a model without a linear head that has a bias and no more, for a method that makes a new one.

    Raises:
        ConfigError: names the parameter that is missing, or the one that a new head would not fit.
    """
    if missing := [name for name in _HEAD if name not in parameters_of(model)]:
        raise ConfigError(
            f"strategy.{method}: the model has no trainable {missing[0]}, so its head cannot be re-trained; use "
            "model.head=linear"
        )
    if more := [name for name in parameters_of(model) if name.startswith("head.") and name not in _HEAD]:
        raise ConfigError(
            f"strategy.{method}: the model's head has {more[0]} beside weight and bias, which was trained with another "
            "head than the new one; use model.head=linear"
        )
