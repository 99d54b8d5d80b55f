"""fedimb's loop inside a Flower ServerApp: maps client ids to Flower's random node ids and sums in client-id order."""

import os
import time
from collections.abc import Mapping, Sequence

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedimb.contracts.platform import CLIENT, JOIN, RUN
from fedimb.engine.admission import Admission
from fedimb.engine.grid import CLIENT_FAILED, Job, SimulationGrid
from fedimb.engine.lanes import Lane, LaneOutcome, Reduction, gather
from fedimb.engine.processes import marked
from fedimb.errors import RunFailed

_PATIENCE_S = 120.0


class FlowerGrid(SimulationGrid):
    """Clients reached through Flower's Grid, with the same order and sums as on the other engines.

    Args:
        grid: the Grid that Flower passed to the ServerApp.
        job: the run; every node learns its run folder when it joins.

    Raises:
        RunFailed: fewer nodes than clients after two minutes, or a node that did not join.
    """

    def __init__(self, grid: Grid, job: Job) -> None:
        super().__init__(job.n_clients)
        self._grid = grid
        self._node_of = self._join(job)

    def _join(self, job: Job) -> dict[int, int]:
        """Ask every node which client it is, since Flower's node ids are random in every run; client id -> node id."""
        deadline = time.monotonic() + _PATIENCE_S
        while len(nodes := list(self._grid.get_node_ids())) < job.n_clients:
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"{len(nodes)} of {job.n_clients} Flower nodes connected within {_PATIENCE_S:.0f} s; start as many "
                    "as clients.count says (flwr run --federation-config num-supernodes=...)"
                )
            time.sleep(0.2)
        about = ConfigRecord({"run-dir": job.run_dir, "cfg-json": job.config_json})
        messages = [Message(RecordDict({RUN: about}), node, f"query.{JOIN}") for node in nodes]
        node_of: dict[int, int] = {}
        for reply in self._grid.send_and_receive(messages):
            if reply.has_error():
                raise RunFailed(f"a Flower node could not join: {reply.error.reason}")
            client = reply.content.config_records[CLIENT]["client"]
            node_of[int(client)] = reply.metadata.src_node_id  # type: ignore[arg-type]
        if sorted(node_of) != list(range(job.n_clients)):
            raise RunFailed(f"clients 0 to {job.n_clients - 1} were expected to join; these did: {sorted(node_of)}")
        return node_of

    def run_lanes(self, lanes: Sequence[Lane], reduce: Reduction, costs: Sequence[float]) -> list[LaneOutcome]:
        """Send all messages at once; replies are put in the order of the lanes, as on every engine."""
        sent = {
            client: Message(message.content, self._node_of[client], message.metadata.message_type)
            for lane in lanes
            for client, message in lane
        }
        client_of = {message.metadata.dst_node_id: client for client, message in sent.items()}
        replies = {client_of[r.metadata.src_node_id]: r for r in self._grid.send_and_receive(list(sent.values()))}
        return in_lanes(lanes, sent, replies, reduce, self.admission)


def in_lanes(
    lanes: Sequence[Lane],
    sent: Mapping[int, Message],
    replies: Mapping[int, Message],
    reduce: Reduction,
    admission: Admission | None = None,
) -> list[LaneOutcome]:
    """Replies in the order of the lanes as one outcome, with one sum; a missing reply becomes an error reply."""
    missing = Error(code=CLIENT_FAILED, reason="no reply")
    ordered = [
        (client, replies.get(client) or Message(missing, reply_to=sent[client])) for lane in lanes for client, _ in lane
    ]
    return [gather(ordered, reduce, sent, admission)]


class FlowerEngine:
    """The engine inside a ServerApp: Flower has started the clients and will stop them."""

    reusable = False

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def grid(self, job: Job) -> FlowerGrid:
        """A grid over Flower's nodes."""
        return FlowerGrid(self._grid, job)

    @property
    def temp_dir(self) -> str | None:
        """The launcher's folder; its name is in the command line of every process the launcher started."""
        return os.environ.get("FEDIMB_FLOWER_DIR")

    def processes(self) -> list[int]:
        """Ids of the processes the launcher started."""
        return marked(self.temp_dir) if self.temp_dir else []

    def close(self) -> None:
        """Nothing to stop."""
