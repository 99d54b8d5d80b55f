"""Ask for masked figures and open their sum, with or without all clients.

In a simulation, and between fewer than four sites, masks cancel only if everybody replies: otherwise the step fails,
and a resume asks all again. From four sites on the sum is over those that replied, opened with two more messages to
each of them (`fedimb.privacy.recoverable_sum`): one per sum if nobody is missing, too. A client that was missing from
one sum of a run is left out of the later ones: two sums over different clients could be subtracted, so sites open one.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fedimb.contracts import platform as names
from fedimb.data.federation import Federation
from fedimb.errors import RunFailed
from fedimb.privacy.recoverable_sum import SIZE, NotOpened, can_recover, least_sites, open_sum, opened_seeds
from fedimb.privacy.secure_sum import unmasked_sum
from fedimb.records import array_record, arrays_of
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.steps import Query, Reply, Step, masked_request

log = logging.getLogger("fedimb")

_SEALED = 16  # bytes that encryption adds


def masked_sum(
    query: Query,
    view: str,
    clients: Sequence[int],
    federation: Federation,
    context: RunContext,
    figures: Callable[[RecordDict], np.ndarray],
) -> Generator[Step, Any, tuple[np.ndarray, list[int]]]:
    """Sub-program: the sum of masked figures.

    Args:
        query: the query for them, without the request for masks.
        view: the rows they are about.
        clients: those with rows of their own, set aside or not.
        figures: the masked figures [n] uint64 in a reply.

    Returns:
        their sum [n] int64, and the clients in it.

    Raises:
        RunFailed: the sum cannot be opened.
    """
    present = [client for client in clients if client not in context.aside()]
    recovers = bool(federation.pairs) and can_recover(len(clients))
    asked = list(clients) if recovers else present
    query.content.update(masked_request(view, asked, federation.pairs))
    if not recovers:
        replies = yield Query(query.name, query.content, query.model, everyone=True)
        return unmasked_sum(np.stack([figures(reply.content) for reply in replies])), asked
    least = least_sites(len(asked))
    replies = yield Query(query.name, query.content, query.model, at_least=least)
    found = _of_one_request(replies, asked)
    alive = sorted(found)
    earlier = alive if context.summed is None else [client for client in alive if client in context.summed]
    if len(earlier) >= least:
        alive = earlier
    for client in asked:
        if client not in alive:
            context.without(query.name, client, _without(query.name, len(alive), len(asked), client in found))
    if len(alive) < least:
        raise RunFailed(
            f"{query.name}: {len(alive)} of {len(asked)} sent masked figures of one request, and {least} are needed to "
            "open their sum: start a new run, or make a plan for the other sites"
        )
    total = yield from _opened(asked, {client: found[client] for client in alive}, figures, federation)
    context.summed = frozenset(alive)
    return total, alive


def _without(query: str, alive: int, asked: int, replied: bool) -> str:
    """What is said of a client that is not in a sum. Each noisy reply has its share of the planned variance."""
    noise = f", with {100 * math.sqrt(alive / asked):.0f} % of the noise" if query == names.NOISY_COUNTS else ""
    why = ", as an earlier sum of this run was" if replied else ""
    return f"is opened without its figures{why} ({alive} of {asked} are in{noise})"


def _of_one_request(replies: Sequence[Reply], asked: Sequence[int]) -> dict[int, RecordDict]:
    """The replies with everything that opening takes, to the request that most of them answer."""
    complete = {}
    for reply in replies:
        arrays = arrays_of(reply.content, names.SHARES) if names.SHARES in reply.content else {}
        sizes = {"request": (SIZE,), "commitments": (len(asked), SIZE)}
        sizes |= {f"to/{other}": (SIZE * len(asked) + _SEALED,) for other in asked if other != reply.client}
        if {name: value.shape for name, value in arrays.items()} == sizes:
            complete[reply.client] = (arrays["request"].tobytes(), reply.content)
        else:
            log.warning("client %d's masked figures came without the shares that open their sum", reply.client)
    if not complete:
        return {}
    ((most, _),) = Counter(request for request, _ in complete.values()).most_common(1)
    return {client: content for client, (request, content) in complete.items() if request == most}


def _opened(
    asked: list[int],
    replies: dict[int, RecordDict],
    figures: Callable[[RecordDict], np.ndarray],
    federation: Federation,
) -> Generator[Step, Any, np.ndarray]:
    """Have the set of clients signed, then their shares revealed, and add up [n] int64."""
    alive, least = sorted(replies), least_sites(len(asked))
    shares = {client: arrays_of(content, names.SHARES) for client, content in replies.items()}
    request = shares[alive[0]]["request"].tobytes().hex()
    about = ConfigRecord({"request": request, "clients": asked, "alive": alive})
    agreed = yield Query(names.SUM_AGREE, RecordDict({names.SUM: about}), to=frozenset(alive), at_least=least)
    signed: dict[str, Any] = {str(reply.client): _signature(reply) for reply in agreed}
    each = {
        client: RecordDict(
            {
                names.SHARES: array_record(
                    {f"from/{sender}": shares[sender][f"to/{client}"] for sender in alive if sender != client}
                )
            }
        )
        for client in alive
    }
    content = RecordDict({names.SUM: about, names.AGREED: ConfigRecord(signed)})
    opened = yield Query(names.SUM_OPEN, content, each=each, to=frozenset(alive), at_least=least)
    revealed = {reply.client: _revealed(reply, asked, alive) for reply in opened}
    commitments = {client: arrays["commitments"] for client, arrays in shares.items()}
    try:
        return open_sum({client: figures(content) for client, content in replies.items()}, asked, commitments, revealed)
    except NotOpened as error:
        names_ = federation.client_names
        who = names_[error.client] if names_ else f"client {error.client}"
        remedy = f"{who} alone, so most likely it sent something else. Start a new run, or make a plan without {who}"
        if not error.alone:
            remedy = f"{who} and others: more of those that revealed them sent something else than can be corrected, "
            remedy += "and nobody can be named. Start a new run, or make a plan for other sites"
        raise RunFailed(
            "the sum of masked figures cannot be opened: shares do not fit the masks that were committed to, of "
            f"{remedy}"
        ) from None


def _signature(reply: Reply) -> str:
    return str(reply.content.config_records[names.AGREED]["signature"])


def _revealed(reply: Reply, asked: Sequence[int], alive: Sequence[int]) -> dict[int, np.ndarray]:
    """The shares in a reply by client; those of another shape than asked for are not used."""
    arrays = arrays_of(reply.content, names.OPENED)
    shapes = {client: (len(opened_seeds(client, asked, alive)), SIZE) for client in alive}
    found = {client: arrays.get(f"from/{client}") for client in alive}
    return {client: rows for client, rows in found.items() if rows is not None and rows.shape == shapes[client]}


__all__ = ["masked_sum"]
