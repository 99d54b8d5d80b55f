"""The steps of a method's program. The loop executes, journals, checkpoints and replays them."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fedimb.contracts import platform as names
from fedimb.contracts.region import members_in
from fedimb.data.region_rows import RegionRows


@dataclass(frozen=True)
class Rounds:
    """``n`` training rounds of a model (``global`` or a name the method registered). Sends None to the program."""

    n: int
    model: str = "global"


@dataclass(frozen=True)
class Query:
    """One message to every client that holds data and one reply each; sends ``list[Reply]`` sorted by client id.

    Args:
        name: the query, declared by the method's contract; a Python identifier.
        content: sent to all clients.
        model: the model whose weights are sent along; None for none.
        each: additional content for single clients, by client id.
        everyone: whether the step fails (and is repeated on resume) unless all clients reply, as masks require.
        at_least: the step fails (and is repeated on resume) unless so many clients reply.
        to: the clients that are asked; None: all that hold data.
    """

    name: str
    content: RecordDict = field(default_factory=RecordDict)
    model: str | None = None
    each: Mapping[int, RecordDict] = field(default_factory=dict)
    everyone: bool = False
    at_least: int = 0
    to: frozenset[int] | None = None

    def content_of(self, client: int, common: RecordDict) -> RecordDict:
        """The content for one client: ``common`` itself (the same object) unless the client gets more."""
        return RecordDict({**common, **self.each[client]}) if client in self.each else common


@dataclass(frozen=True)
class ServerWork:
    """Work at the server whose result is saved; sends the RecordDict that ``fn`` returned (or None)."""

    name: str
    fn: Callable[[], RecordDict | None]


@dataclass(frozen=True)
class Reset:
    """New initial weights and a rebuilt aggregator for a model. A new part of the training begins. Sends None."""

    model: str = "global"


@dataclass(frozen=True)
class Replace:
    """New weights for a model, made by the server (e.g. with the head retrained) and evaluated as a separate round.

    A new part of the training begins with it: means over rounds do not include earlier ones. Sends None.
    """

    weights: Mapping[str, np.ndarray]
    model: str = "global"


@dataclass(frozen=True)
class Wait:
    """Wait for a person. The run ends with exit code 75; a resumed run continues once ``ready`` returns True.

    If ``ready`` is None, resuming is the signal to continue. Sends None.
    """

    reason: str
    ready: Callable[[], bool] | None = None


Step = Rounds | Query | ServerWork | Reset | Replace | Wait


@dataclass(frozen=True)
class Reply:
    """One client's reply to a `Query`."""

    client: int
    content: RecordDict


def step_name(step: Step) -> str:
    """The name of a step in the journal, in progress and in errors."""
    match step:
        case Rounds(n=n, model=model):
            return f"Rounds({n}" + (f", {model})" if model != "global" else ")")
        case Query(name=name) | ServerWork(name=name):
            return f"{type(step).__name__}({name})"
        case Wait(reason=reason):
            return f"Wait({reason})"
        case Reset(model=model) | Replace(model=model):
            return f"{type(step).__name__}({model})"


def replies_to_record(replies: Sequence[Reply]) -> RecordDict:
    """Replies as one RecordDict (keys ``<client>/<record>``), so that a step's result is saved like any content."""
    return RecordDict({f"{r.client}/{key}": value for r in replies for key, value in r.content.items()})


def record_to_replies(record: RecordDict, clients: Sequence[int]) -> list[Reply]:
    """Inverse of `replies_to_record`; ``clients`` are those that replied (a reply may be empty)."""
    contents: dict[int, RecordDict] = {client: RecordDict() for client in clients}
    for key, value in record.items():
        client, _, name = key.partition("/")
        contents[int(client)][name] = value
    return [Reply(client, contents[client]) for client in sorted(contents)]


def masked_request(view: str, clients: Sequence[int], pairs: Mapping[int, str]) -> RecordDict:
    """The content of a query for masked figures of a view: the clients whose masks cancel, and any public keys."""
    content = RecordDict({"view": ConfigRecord({"name": view, "clients": list(clients)})})
    if pairs:
        content[names.PAIRS] = ConfigRecord({str(client): key for client, key in pairs.items()})
    return content


def gather_counts(view: str) -> Generator[Step, Any, np.ndarray]:
    """Sub-program: class counts of every client in a view, [n_clients_with_data, C] int64, one row per reply.

    ``counts = yield from gather_counts("coreset")``; sum the rows for the total. 8 C bytes up per client.
    """
    return np.stack(list((yield from counts_by_client(view))[0].values()))


def counts_by_client(
    view: str, regions: Sequence[RegionRows] = ()
) -> Generator[Step, Any, tuple[dict[int, np.ndarray], bool]]:
    """Sub-program: as `gather_counts`, class counts [C] int64 by the id of the client that replied.

    Args:
        regions: what is known of each client's sites, by client id, if clients are regions.

    Returns:
        The counts, and whether those of a region are over some of its sites alone.
    """
    replies = yield Query(names.CLASS_COUNTS, RecordDict({"view": ConfigRecord({"name": view})}))
    partial = bool(regions) and any(members_in(r.content) < regions[r.client].sites for r in replies)
    return {r.client: r.content.array_records[names.COUNTS]["counts"].numpy() for r in replies}, partial
