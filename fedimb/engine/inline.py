"""engine=inline: every client in this process, one after another; the same results as ray, and debuggers work."""

from collections.abc import Callable, Sequence
from types import TracebackType

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedimb.engine.grid import Job, SimulationGrid, deliver
from fedimb.engine.lanes import Ahead, Lane, LaneOutcome, Reduction, ahead_of, run_lanes


class InlineGrid(SimulationGrid):
    """Calls a ClientApp directly. Works with any ClientApp; contexts (and their state) live as long as the grid.

    Args:
        app: the ClientApp.
        n_clients: simulated clients.
        context_of: client id -> Context.
        ahead: gives the work done for many clients at once before the app is called for each of them; asked before
            every message, since a process keeps only the last few runs' models and may have built this one anew.
    """

    def __init__(
        self,
        app: ClientApp,
        n_clients: int,
        context_of: Callable[[int], Context],
        ahead: Callable[[], Ahead | None] = lambda: None,
    ) -> None:
        super().__init__(n_clients)
        self._app, self._context_of, self._ahead = app, context_of, ahead
        self._contexts: dict[int, Context] = {}

    def _call(self, client: int, message: Message) -> Message:
        if client not in self._contexts:
            self._contexts[client] = self._context_of(client)
        return deliver(self._app, message, self._contexts[client], client)

    def run_lanes(self, lanes: Sequence[Lane], reduce: Reduction, costs: Sequence[float]) -> list[LaneOutcome]:
        """Lanes in order, clients in order, one thread."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the same bits as a Ray worker, and faster on small models
        try:
            return run_lanes(lanes, self._call, reduce, self._ahead(), self.admission)
        finally:
            torch.set_num_threads(threads)


class InlineEngine:
    """Runs clients in this process: nothing to start, nothing to stop."""

    def grid(self, job: Job) -> InlineGrid:
        """A grid over the run's clients."""
        from fedimb.clientapp.app import ready_app

        def ahead() -> Ahead | None:
            return ahead_of(job.context(0))

        ahead()  # what cannot be built is said before the first message
        return InlineGrid(ready_app(), job.n_clients, job.context, ahead)

    temp_dir = None
    reusable = True

    def processes(self) -> list[int]:
        """Ids of processes this engine started: none."""
        return []

    def close(self) -> None:
        """Nothing to stop."""

    def __enter__(self) -> "InlineEngine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
