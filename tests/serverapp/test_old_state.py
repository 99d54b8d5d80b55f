"""Run folders of fedimb 0.1: what methods and aggregators kept is read, or refused where it was not saved."""

import json

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM

from fedimb.errors import RunFailed
from fedimb.records import array_record, to_numpy
from fedimb.serverapp.method_state import take_method_records
from fedimb.serverapp.old_state import state_of_snapshot
from fedimb.serverapp.state_dict import load_state
from fedimb.strategies.base import Method


def test_a_methods_memory_is_read_and_its_settings_are_not():
    method = Method(FedAvg())
    kinds = {
        "memory": {"kind": "dict", "keys": {"seen": True, "n": True, "table": False}},
        "cycles": {"kind": "scalar", "value": 99},
    }
    arrays = {"memory/seen": np.array(2.5), "memory/n": np.array(3), "memory/table": np.ones((2, 0))}
    records = RecordDict(
        {
            "fedimb.method.arrays.0": array_record(arrays),
            "fedimb.method.kinds.0": ConfigRecord({"json": json.dumps(kinds)}),
            "mine": ConfigRecord({"x": 1}),
        }
    )
    take_method_records(records, method)
    assert list(records) == ["mine"]
    assert (method.memory["seen"], method.memory["n"], method.memory["table"].shape) == (2.5, 3, (2, 0))
    assert type(method.memory["n"]) is int
    assert not hasattr(method, "cycles")


def test_moments_of_flowers_strategies_are_read():
    kinds = {"m_t": {"kind": "dict", "keys": {"w": False}}, "v_t": {"kind": "scalar", "value": None}}
    adam = FedAdam()
    load_state(adam, state_of_snapshot(adam, kinds | {"eta": {"kind": "scalar", "value": 9}}, {"m_t/w": np.ones(2)}))
    assert adam.m_t["w"].tolist() == [1, 1]
    assert adam.eta != 9
    kinds = {
        "momentum_vector": {"kind": "list", "keys": ["0", "1"]},
        "current_arrays": {"kind": "record", "keys": ["w"]},
    }
    arrays = {"momentum_vector/0": np.zeros(2), "momentum_vector/1": np.ones(()), "current_arrays/w": np.full(2, 3.0)}
    momentum = FedAvgM()
    load_state(momentum, state_of_snapshot(momentum, kinds, arrays))
    assert [v.shape for v in momentum.momentum_vector] == [(2,), ()]
    assert to_numpy(momentum.current_arrays)["w"].tolist() == [3, 3]


def test_what_was_not_saved_then_is_refused_by_name():
    class Remembers(FedAvg):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[float] = []

        def state_dict(self):
            return {"seen": self.seen}

    with pytest.raises(RunFailed, match=r"aggregator Remembers: this run was started with fedimb 0\.1, .* 'seen'"):
        state_of_snapshot(Remembers(), {"fraction_train": {"kind": "scalar", "value": 1.0}}, {})
