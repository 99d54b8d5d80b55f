"""The methods' state as records: saved with every finished step, restored when the step is replayed."""

import json

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.records import array_record, to_numpy
from fedimb.serverapp.aggregator import chain
from fedimb.serverapp.old_state import state_of_snapshot
from fedimb.serverapp.state_dict import decode, encode, load_state

_ARRAYS, _STATE = "fedimb.method.arrays", "fedimb.method.state"
_KINDS = "fedimb.method.kinds"  # in steps saved by fedimb 0.1


def method_records(strategy: Strategy) -> RecordDict:
    """The state dicts of the methods around an aggregator, two records per method, outermost first."""
    records = RecordDict()
    for depth, method in enumerate(chain(strategy)[:-1]):
        spec, arrays = encode(method)
        records[f"{_ARRAYS}.{depth}"] = array_record(arrays)
        records[f"{_STATE}.{depth}"] = ConfigRecord({"json": json.dumps(spec)})
    return records


def take_method_records(records: RecordDict, strategy: Strategy) -> None:
    """Inverse of `method_records`: load the state dicts, and remove the methods' records from ``records``."""
    for depth, method in enumerate(chain(strategy)[:-1]):
        arrays = to_numpy(records.array_records[f"{_ARRAYS}.{depth}"])
        written = next(key for key in (f"{_STATE}.{depth}", f"{_KINDS}.{depth}") if key in records)
        spec = json.loads(str(records.config_records[written]["json"]))
        old = written.startswith(_KINDS)
        load_state(method, state_of_snapshot(method, spec, arrays) if old else decode(spec, arrays))
        del records[f"{_ARRAYS}.{depth}"], records[written]
