"""The egress filter: the outermost client mod, the same on every engine.

It checks each outgoing record against what the contracts declare. Undeclared records are refused, because the only safe
default for data leaving a hospital is that it does not leave.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord
from flwr.clientapp.typing import ClientAppCallable

from fedimb.contracts.base import Contract, Record
from fedimb.records import payload_bytes

ContractsOf = Callable[[Context], list[Contract]]

_KINDS = {ArrayRecord: "arrays", MetricRecord: "metrics", ConfigRecord: "config"}

REFUSED = 1301
"""Error code of a reply that the filter blocked."""


def declared_for(message_type: str, contracts: list[Contract]) -> tuple[Record, ...]:
    """The records a reply to ``message_type`` (``train`` or ``query.<name>``) may carry."""
    category, _, action = message_type.partition(".")
    if category == "train":
        return tuple(record for contract in contracts for record in contract.train)
    own = [contract.queries[action] for contract in contracts if action in contract.queries]
    state = [r for r in contracts[0].queries["class_counts"] if r.key == "x.state"]
    return tuple(r for records in own for r in records) + tuple(state)


def violation(message: Message, declared: tuple[Record, ...]) -> str | None:
    """The first reason why a reply may not leave, or None. Every record's key, kind, dtypes and size are checked."""
    by_key = {record.key: record for record in declared}
    for key, value in message.content.items():
        record = by_key.get(key)
        if record is None:
            return f"record '{key}' is not declared by any contract of this run for '{message.metadata.message_type}'"
        kind = _KINDS[type(value)]
        if kind != record.kind:
            return f"record '{key}' is {kind}, declared as {record.kind}"
        if isinstance(value, ArrayRecord) and record.dtypes:
            for name, array in value.items():
                if _dtype_name(array.dtype) not in record.dtypes:
                    return f"record '{key}', array '{name}' is {array.dtype}, declared as {' or '.join(record.dtypes)}"
        if record.max_bytes is not None:
            size = payload_bytes(type(message.content)({key: value}))
            if size > record.max_bytes:
                return f"record '{key}' carries {size} bytes, declared at most {record.max_bytes}"
    missing = [r.key for r in declared if not r.optional and r.key not in message.content]
    return f"record '{missing[0]}' is declared but missing from the reply" if missing else None


@lru_cache(maxsize=256)
def _dtype_name(dtype: str) -> str:
    return np.dtype(dtype).name


def egress_filter(contracts: ContractsOf, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Run the client and pass on its reply only if every record is declared; otherwise return an error reply."""
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    reason = violation(reply, declared_for(message.metadata.message_type, contracts(context)))
    if reason is None:
        return reply
    return Message(Error(code=REFUSED, reason=f"egress filter: {reason}"), reply_to=message)
