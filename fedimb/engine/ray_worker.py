"""What runs inside a Ray actor, and how lanes are distributed over actors. Imports ray only to ask where it is."""

import os
import pickle
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedimb import process_env
from fedimb.engine.admission import Admission
from fedimb.engine.grid import Job, deliver
from fedimb.engine.lanes import Ahead, ClientReply, Instruction, LaneOutcome, LaneSum, Reduction, ahead_of, run_lanes
from fedimb.errors import DataError

if TYPE_CHECKING:
    from fedimb.rundir.code import Code

PackedLane = list[tuple[int, int, str, RecordDict]]
"""(client, node id, message type, records for this client only) of each client, in id order."""


class Worker:
    """One actor: one thread, one resident model, any client of any run."""

    def __init__(self) -> None:
        process_env.set_defaults()  # on a cluster, workers start with its environment, not the driver's
        import torch

        torch.set_num_threads(1)
        from fedimb.engine.flower_private import ensure_identity

        ensure_identity()

    def ready(self) -> int:
        """Process id, once everything a lane needs is imported."""
        import fedimb.clientapp.app  # noqa: F401

        return os.getpid()

    def run_lanes(
        self,
        job: Job,
        lanes: list[PackedLane],
        shared: dict[str, Any],
        reduce: bool | bytes,
        first_ids: list[int],
        path: list[str],
        checks: bytes | None = None,
    ) -> list[LaneOutcome]:
        """Run lanes one after another, each lane's clients in order; ``shared`` records go to all of them.

        ``path`` is the driver's `sys.path`, absolute: a user's model class is then importable here too.
        ``reduce`` is as in `fedimb.engine.lanes.gather`, with a `Reduce` pickled; ``checks`` a pickled `Admission`. One
        sum over all these lanes is returned, with the first of them.
        On a machine that lacks something the run needs, every client replies with an error that names it.
        """
        sys.path.extend(folder for folder in path if folder not in sys.path)
        from fedimb.clientapp.app import app
        from fedimb.engine.flower_private import number

        ahead, problem = _prepare(job)
        reduction: Reduction = reduce if isinstance(reduce, bool) else pickle.loads(reduce)
        admission: Admission | None = None if checks is None else pickle.loads(checks)

        def instruction(message_id: int, client: int, node: int, kind: str, own: RecordDict) -> Instruction:
            message = Message(RecordDict({**shared, **own}), node, kind)
            number(message, str(message_id))
            return client, message

        def call(client: int, message: Message) -> Message:
            if problem is not None:
                return _error_reply(problem, message, job.context(client), client)
            return deliver(app, message, job.context(client), client)

        instructions = [
            [instruction(first + i, *entry) for i, entry in enumerate(lane)]
            for lane, first in zip(lanes, first_ids, strict=True)
        ]
        return run_lanes(instructions, call, reduction, ahead, admission)

    def run_lanes_apart(self, *args: Any) -> tuple[list[list[ClientReply]], LaneSum]:
        """`run_lanes` with its sum apart from the replies: two objects in Ray, of which the sum can stay here."""
        outcomes = self.run_lanes(*args)
        return [outcome.replies for outcome in outcomes], outcomes[0].total

    def machine(self) -> str:
        """Id of the Ray node that this process is on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def code(self, words: list[str], path: list[str]) -> "Code":
        """The code of a run with these names in its configuration, as this process has imported it."""
        sys.path.extend(folder for folder in path if folder not in sys.path)
        from fedimb.rundir.code import code_of

        return code_of(words)


def _prepare(job: Job) -> tuple[Ahead | None, Exception | None]:
    """Open the run on this machine; returns the work done ahead for its clients, or why they cannot run here."""
    try:
        if not Path(job.run_dir).is_dir():
            raise DataError(
                f"no run folder {job.run_dir}; set output_dir to a folder that every machine of the cluster sees "
                "under that path"
            )
        return ahead_of(job.context(0)), None
    except Exception as error:  # the clients' replies carry it to the server
        error.add_note(f"on machine {socket.gethostname()}")
        return None, error


def _error_reply(error: Exception, message: Message, context: Context, client: int) -> Message:
    """The reply of a client whose machine lacks something: the error, as `deliver` reports it."""

    def refuse(message: Message, context: Context) -> Message:
        raise error

    return deliver(cast(ClientApp, refuse), message, context, client)


def batches(costs: Sequence[float], count: int) -> list[list[int]]:
    """Distribute lanes over at most ``count`` calls: the longest lane first, each to the call with the least work.

    A call costs milliseconds whatever it carries, so an actor gets a few lanes at a time; which ones does not change
    any result. Returns lane indices by call, the longest call first.
    """
    shares: list[list[int]] = [[] for _ in range(min(count, len(costs)))]
    loads = [0.0] * len(shares)
    for lane in sorted(range(len(costs)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        shares[least].append(lane)
        loads[least] += max(costs[lane], 1e-9)
    return [sorted(shares[i]) for i in sorted(range(len(shares)), key=lambda i: -loads[i])]
