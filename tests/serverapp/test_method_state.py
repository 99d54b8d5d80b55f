"""A method's state on resume: as if the run had never stopped, whatever its program does with it between steps."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from own_method import own_method

import fedimb
from fedimb.clients.base import Client
from fedimb.contracts.base import Contract
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.launch import resume
from fedimb.serverapp.method_state import method_records, take_method_records
from fedimb.serverapp.steps import Rounds, ServerWork
from fedimb.strategies.base import Method

crash_at: set[int] = set()
"""Rounds in which the run is interrupted, once each."""


class Counting(Method):
    """Sets, changes and reads its memory in the program as well as in the rounds."""

    def program(self, run):
        self.memory |= {"seen": 0.0, "cycle": 0.0, "table": np.zeros((2, 0))}
        for _ in range(2):
            self.memory["cycle"] += 1
            yield Rounds(2)
            if self.memory["seen"] == 8 * self.memory["cycle"]:  # only true when read as of the end of the step
                note = RecordDict({"note": ConfigRecord({"seen": self.memory["seen"]})})
                result = yield ServerWork("note", lambda kept=note: kept)
                self.memory["table"] = np.append(self.memory["table"], np.full((2, 1), result["note"]["seen"]), axis=1)

    def on_train_replies(self, server_round, replies):
        self.memory["seen"] += len(replies)
        if server_round in crash_at:
            crash_at.remove(server_round)
            raise KeyboardInterrupt
        columns = self.memory["table"].shape[1]
        return {"n/seen": self.memory["seen"], "n/cycle": self.memory["cycle"], "n/columns": float(columns)}


@pytest.fixture
def groups() -> Iterator[Path]:
    with own_method(Counting, Client, Contract("counting")) as groups:
        yield groups


@pytest.fixture
def words(tmp_path: Path) -> str:
    return (
        f"strategy=counting output_dir={tmp_path}/runs engine=inline tracking=none data=synthetic_table "
        "data.source.rows=1500 clients.count=4 local.epochs=1 evaluation.bootstrap=0"
    )


@pytest.mark.parametrize("rounds", [*(pytest.param({at}, marks=pytest.mark.slow) for at in (1, 2, 3)), {4}, {2, 3}])
def test_an_interrupted_run_remembers_as_an_uninterrupted_one(rounds, words, groups, tmp_path):
    crash_at.update(rounds)
    with pytest.raises(KeyboardInterrupt):
        fedimb.run(words, config_dirs=(groups,))
    (run,) = tmp_path.glob("runs/*/*")
    while RunFolder(run).status() != "finished":
        try:
            resume(run)
        except KeyboardInterrupt:
            continue
    assert not crash_at
    lines = [line["metrics"] for line in RunFolder(run).metrics()]
    assert [line["n/seen"] for line in lines] == [4.0, 8.0, 12.0, 16.0]
    assert [line["n/cycle"] for line in lines] == [1.0, 1.0, 2.0, 2.0]
    assert [line["n/columns"] for line in lines] == [0.0, 0.0, 1.0, 1.0]


def test_memory_round_trips_and_leaves_other_records():
    outer, other = Counting(Counting(FedAvg())), Counting(Counting(FedAvg()))
    outer.memory |= {"a": 1, "b": 2.5, "scalar": np.array(3.0), "m": np.arange(6).reshape(2, 3)}
    outer.inner.memory["deep"] = np.float32(7)
    records = method_records(outer)
    outer.memory["m"][:] = -1  # what was kept does not change with the method
    records["mine"] = ConfigRecord({"x": 1})
    take_method_records(records, other)
    assert list(records) == ["mine"]
    assert other.memory["a"] == 1
    assert other.memory["b"] == 2.5
    assert other.memory["scalar"].shape == ()
    assert np.array_equal(other.memory["m"], np.arange(6).reshape(2, 3))
    assert other.inner.memory == {"deep": 7}
    assert isinstance(other.inner, Counting)
