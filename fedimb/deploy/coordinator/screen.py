"""Screen the updates of sites by their length: one far longer than everybody else's is left out, with the site's name.

What a reply may hold is checked on every engine (`fedimb.engine.admission`), and first of all here: nothing of a reply
is read before. The length is not a defence against a malicious site: an update as long as the others' passes. What
bounds it is `fedimb.serverapp.influence`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, Error, Message

from fedimb.by_reference import view
from fedimb.contracts import platform as names
from fedimb.contracts.fedssg import GENERATOR
from fedimb.contracts.variate import VARIATE
from fedimb.engine.admission import Admission
from fedimb.engine.record_checks import Refusal

LEFT_OUT = 1311
"""Error code that replaces a reply that was left out."""
MAX_RATIO = 1000.0
"""An update is left out if its norm is more than this many times the median of the others'."""
_UPDATES = {names.ARRAYS: True, GENERATOR: True, VARIATE.key: False}
"""Records that change a model: whether they hold new values (True) or the change itself."""


def screen_replies(
    sent: Mapping[int, Message],
    replies: Mapping[int, Message],
    sites: Mapping[int, str],
    admission: Admission | None = None,
) -> tuple[dict[int, Message], dict[int, Refusal]]:
    """Replies by client id; one with an implausible update is replaced by an error that says why. And what was left
    out, by client id: it does not count against the site, as training may diverge.

    Args:
        admission: what a reply is checked against first; one that it refuses is kept as it is, for the lanes to name.
    """
    kept, left_out = dict(replies), dict[int, Refusal]()
    good = {
        client: reply
        for client, reply in replies.items()
        if not reply.has_error() and (admission is None or admission.refusal(client, reply, sent[client]) is None)
    }
    for key, absolute in _UPDATES.items():
        lengths = {
            client: _length(cast(ArrayRecord, reply.content[key]), sent[client].content.get(key) if absolute else None)
            for client, reply in good.items()
            if isinstance(reply.content.get(key), ArrayRecord) and _changes(key, sent[client])
        }
        for client, length in lengths.items():
            others = [value for other, value in lengths.items() if other != client and math.isfinite(value)]
            if long := _implausible(length, others):
                kept[client] = _left_out(sites[client], key, long, sent[client])
                left_out[client] = Refusal(key, "", f"is {long}", counts=False)
    return kept, left_out


class ArrivalScreen:
    """The same of replies that arrive one by one: each is compared with the last ones of the other sites.

    After a resume it begins anew: until two others have replied, no length is implausible.

    Args:
        sites: names by client id.
    """

    def __init__(self, sites: Mapping[int, str]) -> None:
        self._sites = sites
        self._lengths: dict[str, dict[int, float]] = {}

    def screened(self, client: int, sent: Message, reply: Message) -> tuple[Message, Refusal | None]:
        """The reply, or an error in its place that says why it is left out."""
        for key, absolute in _UPDATES.items():
            if reply.has_error() or not isinstance(reply.content.get(key), ArrayRecord) or not _changes(key, sent):
                continue
            known = self._lengths.setdefault(key, {})
            length = _length(cast(ArrayRecord, reply.content[key]), sent.content.get(key) if absolute else None)
            long = _implausible(length, [value for other, value in known.items() if other != client])
            if long:
                return _left_out(self._sites[client], key, long, sent), Refusal(key, "", f"is {long}", counts=False)
            if math.isfinite(length):
                known[client] = length
        return reply, None


def _implausible(length: float, others: Sequence[float]) -> str:
    """How much longer an update is than those of the others, in words; empty: not much."""
    typical = float(np.median(others)) if len(others) >= 2 else math.inf
    if not (math.isfinite(length) and length > MAX_RATIO * typical > 0):
        return ""
    return f"{length / typical:.0e} times as long as the others'"


def _left_out(site: str, key: str, long: str, request: Message) -> Message:
    what = "update" if key == names.ARRAYS else f"'{key}'"
    return Message(Error(code=LEFT_OUT, reason=f"{site}'s {what} is {long}; left out"), reply_to=request)


def _changes(key: str, request: Message) -> bool:
    trains = request.metadata.message_type == "train"
    return key in request.content if key == GENERATOR else trains


def _length(new: ArrayRecord, old: object) -> float:
    """Norm of a change; NaN if it is not finite, or not of what was sent."""
    before = {} if old is None else {name: view(array) for name, array in cast(ArrayRecord, old).items()}
    squares = []
    for name, array in new.items():
        value = view(array)
        if old is not None and (name not in before or before[name].shape != value.shape):
            return math.nan
        squares.append(float(np.sum((value.astype(np.float64) - before.get(name, 0.0)) ** 2)))
    return math.sqrt(math.fsum(squares)) if all(map(math.isfinite, squares)) else math.nan
