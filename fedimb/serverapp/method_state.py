"""What methods remember, as records: saved with every finished step, put back when the step is replayed."""

import json

from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedimb.records import array_record, to_numpy
from fedimb.serverapp.aggregator import chain, restore, snapshot

_ARRAYS, _KINDS = "fedimb.method.arrays", "fedimb.method.kinds"


def memory_of(strategy: Strategy) -> RecordDict:
    """Attributes of the methods around an aggregator (see `snapshot`), two records per method, outermost first."""
    records = RecordDict()
    for depth, method in enumerate(chain(strategy)[:-1]):
        arrays, kinds = snapshot(method)
        records[f"{_ARRAYS}.{depth}"] = array_record({k: v.copy() for k, v in arrays.items()})
        records[f"{_KINDS}.{depth}"] = ConfigRecord({"json": json.dumps(kinds)})
    return records


def take_memory(records: RecordDict, strategy: Strategy) -> None:
    """Inverse of `memory_of`: put the attributes back and take the two records of each method out of ``records``."""
    for depth, method in enumerate(chain(strategy)[:-1]):
        arrays = records.array_records[f"{_ARRAYS}.{depth}"]
        kinds = records.config_records[f"{_KINDS}.{depth}"]
        restore(method, to_numpy(arrays), json.loads(str(kinds["json"])))
        del records[f"{_ARRAYS}.{depth}"], records[f"{_KINDS}.{depth}"]
