"""The server half of a method: a Flower `Strategy` that wraps an inner one and adds a program of named steps.

```python
class Mine(Method):
    def program(self, run):
        replies = yield Query("mine_profile")
        yield Query("mine_prune", pool(replies))
        yield from self.inner_program(run)
```

In fedimb the one loop executes the program. Being a Strategy it also works alone: `start` runs it in a plain
ServerApp over any Grid, with clients that answer ``train`` (and this method's queries).
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedimb.serverapp.steps import Reply, Rounds, Step

if TYPE_CHECKING:
    from fedimb.serverapp.context import RunContext
    from fedimb.serverapp.server import Server

Program = Generator[Step, Any, None]


class Method(Strategy):
    """Base class of every method's server half. All five Flower hooks go to the inner strategy unless overridden.

    Args:
        inner: the strategy this one wraps: an aggregator or another method (given by fedimb).

    Attributes:
        memory: a dict for what the method keeps; saved with every step and checkpoint.
        transient: names of attributes that every round sets anew before it reads them, so that nothing is lost when
            they are not saved.
    """

    transient: ClassVar[tuple[str, ...]] = ()

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner
        self.memory: dict[str, np.ndarray | float] = {}

    def state_dict(self) -> dict[str, Any]:
        """What must survive a kill, by attribute name: ``memory``, and what a subclass adds to it.

        ``return super().state_dict() | {"seen": self.seen}``. What may be in it: `fedimb.serverapp.state_dict`. An
        attribute that changes during a step and is not in it ends the run at the first checkpoint.
        """
        return {"memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put every item of a `state_dict` back into the attribute of its name; override where that is not enough."""
        for name, value in state.items():
            setattr(self, name, value)

    def check(self, rounds: int) -> None:
        """Called once before a run starts: refuse settings that do not go with its number of rounds (ConfigError)."""

    def check_server(self, server: "Server") -> None:
        """Called once before a run starts, at the server: refuse what its own rows do not allow (ConfigError)."""

    def inner_rounds(self, rounds: int) -> int:
        """How many of its rounds the inner method trains in one go: what its `check` is given."""
        return rounds

    def shortest(self) -> int:
        """The fewest rounds whose last one is like those of a whole run: what an estimate runs."""
        return self.inner.shortest() if isinstance(self.inner, Method) else 2

    def program(self, run: "RunContext") -> Program:
        """The steps, outermost method first. Default: the inner method's, or all training rounds."""
        yield from self.inner_program(run)

    def inner_program(self, run: "RunContext") -> Program:
        """The wrapped method's program; for an aggregator: ``Rounds(run.rounds)``."""
        if isinstance(self.inner, Method):
            yield from self.inner.program(run)
        else:
            yield Rounds(run.rounds)

    def before_aggregation(self, server_round: int, replies: Sequence[Reply]) -> None:
        """See the records of `on_train_replies` before the aggregator takes in the round's updates."""

    def on_train_replies(self, server_round: int, replies: Sequence[Reply]) -> dict[str, float]:
        """See, after aggregation, the records ``x.*`` of the usable train replies, sorted by client id.

        Returns:
            metrics to log with the round; names as in the design (``data/labelled``).
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

        Nothing is stored and nothing can be resumed here: that is what ``fedimb run`` is for.
        """
        from fedimb.serverapp.plain_server import start

        return start(self, grid, initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)
