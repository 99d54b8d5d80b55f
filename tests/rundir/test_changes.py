"""A run that is resumed with other code or data is refused, with the difference; or its journal says so."""

import json
import shutil
import sys

import numpy as np
import pytest
from seals import rows_of, unfinished
from small_runs import launch_in, weights_sha

from fedimb.rundir.changes import Changed
from fedimb.rundir.result import RunResult
from fedimb.serverapp.launch import resume

NET = """
import math
from torch import nn
from fedimb.models.base import Classifier

class Net(Classifier):
    def __init__(self, n_classes: int, input_shape: tuple[int, ...]):
        super().__init__()
        self.body = nn.Flatten()
        self.head = nn.Linear(math.prod(input_shape), n_classes)

    def features(self, x):
        return self.body(x)
"""


def write_data(path, shift=0.0):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    np.savez(path, x=(rng.normal(size=(90, 4)) + np.eye(3, 4)[y] + shift).astype(np.float32), y=y)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run on a file, with a model of the user's own, killed before its last round was done."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_changing_net.py").write_text(NET)
    write_data(tmp_path / "data.npz")
    data = ("data=embeddings_npz", f"data.source.path={tmp_path / 'data.npz'}", "data.n_max=null", "rounds=3")
    words = ("engine=inline", "clients.count=2", "partition=iid", *data, "model={_target_: my_changing_net.Net}")
    yield launch_in(tmp_path, *words)
    sys.modules.pop("my_changing_net", None)


def test_changed_data_are_refused_by_name_or_written_into_the_journal(run, tmp_path):
    whole = shutil.copytree(run.folder, tmp_path / "whole")
    unfinished(run.folder)
    write_data(tmp_path / "data.npz", shift=1.0)
    with pytest.raises(Changed, match=r"started with other code or data: the data changed\. Put them back"):
        resume(run.folder)
    resume(run.folder, accept_changes=True)
    events = [json.loads(line) for line in (run.folder / "journal.jsonl").read_text().splitlines()]
    assert [e["changes"] for e in events if e["event"] == "changes accepted"] == [["the data changed"]]
    assert weights_sha(RunResult.read(run.folder)) == weights_sha(RunResult.read(whole))  # from the run's own copy
    assert rows_of(run.folder) == rows_of(whole)


def test_changed_code_is_refused_by_name_or_written_into_the_journal(run, tmp_path):
    unfinished(run.folder)
    (tmp_path / "my_changing_net.py").write_text(NET + "\n# another comment\n")
    with pytest.raises(Changed, match=r"my_changing_net\.py changed"):
        resume(run.folder)
    resume(run.folder, accept_changes=True)
    assert "my_changing_net.py changed" in (run.folder / "journal.jsonl").read_text()


def test_a_data_file_that_was_touched_or_is_gone_is_no_change(run, tmp_path, caplog):
    unfinished(run.folder)
    write_data(tmp_path / "data.npz")
    resume(run.folder)
    unfinished(run.folder)
    (tmp_path / "data.npz").unlink()
    resume(run.folder)
    assert "the run continues with its own copy" in caplog.text
