"""Screen the replies of sites: implausible ones are left out, with the site's name, before aggregation.

Every engine already rejects values that are not finite (`fedimb.engine.lanes`). Between hospitals two more things can
go wrong: weights of another shape (another release, another model), and an update far larger than everybody else's.
The latter check is not a defence against a malicious site: an update as long as the others' passes.
"""

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, Error, Message

from fedimb.contracts import platform as names
from fedimb.records import to_numpy

LEFT_OUT = 1311
"""Error code that replaces a reply that was left out."""
MAX_RATIO = 1000.0
"""An update is left out if its norm is more than this many times the median of the others'."""


def screen_replies(
    sent: Mapping[int, Message], replies: Mapping[int, Message], sites: Mapping[int, str]
) -> dict[int, Message]:
    """Replies by client id; an implausible train reply is replaced by an error that says why."""
    kept = dict(replies)
    lengths: dict[int, float] = {}
    for client, reply in replies.items():
        if reply.has_error() or reply.metadata.message_type != "train" or names.ARRAYS not in reply.content:
            continue
        old = to_numpy(cast(ArrayRecord, sent[client].content[names.ARRAYS]))
        new = to_numpy(cast(ArrayRecord, reply.content[names.ARRAYS]))
        if reason := _format_mismatch(old, new):
            kept[client] = _error(sent[client], f"{sites[client]} sent {reason}; left out of this round")
        else:
            lengths[client] = _distance(old, new)
    for client, length in lengths.items():
        others = [value for other, value in lengths.items() if other != client and math.isfinite(value)]
        typical = float(np.median(others)) if len(others) >= 2 else math.inf
        if math.isfinite(length) and length > MAX_RATIO * typical > 0:
            text = f"{sites[client]}'s update is {length / typical:.0e} times as long as the others'; left out"
            kept[client] = _error(sent[client], text)
    return kept


def _format_mismatch(old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> str | None:
    if old.keys() != new.keys():
        return f"different arrays than it was sent ({', '.join(sorted(old.keys() ^ new.keys())[:3])})"
    for name, value in old.items():
        if value.shape != new[name].shape or value.dtype != new[name].dtype:
            return f"'{name}' as {new[name].dtype} {list(new[name].shape)}, not {value.dtype} {list(value.shape)}"
    return None


def _distance(old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> float:
    squares = [float(np.sum((new[name].astype(np.float64) - value) ** 2)) for name, value in old.items()]
    return math.sqrt(math.fsum(squares)) if all(map(math.isfinite, squares)) else math.nan


def _error(message: Message, text: str) -> Message:
    return Message(Error(code=LEFT_OUT, reason=text), reply_to=message)
