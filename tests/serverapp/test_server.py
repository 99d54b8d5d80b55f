"""What a method may have its server do: train on rows of its own, start from that, write to single clients, replace."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from own_method import own_method
from small_runs import config, launch_in, weights_sha

from fedimb.clients.base import Client
from fedimb.contracts.base import Contract, Record
from fedimb.errors import ConfigError, RunFailed
from fedimb.records import array_record, arrays_of
from fedimb.rundir.folder import RunFolder
from fedimb.serverapp.launch import resume
from fedimb.serverapp.steps import Query, Replace, Rounds, ServerWork
from fedimb.strategies.base import Method

TOLD = Record("x.told", "arrays", "what the client was told", "operational", dtypes=("int64",))
STOP = {"once": False}


class Handy(Method):
    """Pretrains at the server, tells each client something, adds rows at clients, and replaces the head at the end."""

    def program(self, run):
        rows = run.server.public()
        made = yield ServerWork("pretrain", lambda: self._pretrain(run, rows))
        run.initial = arrays_of(made, "weights")
        each = {c: RecordDict({"x.word": ConfigRecord({"word": 10 * c})}) for c in range(run.n_clients - 1)}
        replies = yield Query("handy_told", each=each)
        self.memory["told"] = np.array([arrays_of(r.content, "x.told")["told"][0] for r in replies])
        yield Rounds(run.rounds)
        yield Replace({name: np.zeros_like(value) for name, value in run.initial.items()})
        if STOP.pop("once", None):
            raise RunFailed("stopped behind the replacement")

    def _pretrain(self, run, rows):
        weights = run.server.train(run.server.model(), rows.x, rows.y, epochs=30)
        return RecordDict({"weights": array_record(weights)})


class HandyClient(Client):
    def query(self, name, content, context):
        word = content.config_records["x.word"]["word"] if "x.word" in content else -1
        return RecordDict({"x.told": array_record({"told": np.array([word])})})

    def train_spec(self, spec, context):
        x = context.data.tensors("train")[0]
        return spec.change(extra=(torch.zeros(7, *x.shape[1:]), torch.zeros(7, dtype=torch.int64)))


@pytest.fixture
def handy():
    """Runs of the method ``handy``, or of a subclass: ``handy(tmp_path, "rounds=1", method=Other)``."""
    contract = Contract("handy", queries={"handy_told": (TOLD,)}, adds_rows=True)

    def launched(cwd, *words, method=Handy):
        with own_method(method, HandyClient, contract) as groups:
            fixed = ("strategy=handy", "engine=inline", "data.public=5", "clients.count=4")
            return resume(cwd) if not words else launch_in(cwd, *fixed, *words, dirs=[groups])

    return launched


def test_the_servers_rows_are_nobody_elses(tmp_path):
    from fedimb.data.federation import Federation

    result = launch_in(tmp_path, "data.public=5", "engine=inline", "rounds=1")
    plain = launch_in(tmp_path, "engine=inline", "rounds=1", "study=plain")
    found, without = Federation.load(result.folder), Federation.load(plain.folder)
    assert np.bincount(found.store.y[found.public]).tolist() == [5] * 10
    held = np.concatenate([*found.train, found.test])
    assert not np.isin(found.public, held).any()
    assert found.test.tolist() == without.test.tolist()  # and nobody else's draw changed
    assert found.counts.sum(0).tolist() == without.counts.sum(0).tolist()
    assert found.sha != without.sha


def test_more_public_rows_than_a_class_has_are_refused_with_the_setting(tmp_path):
    from fedimb.errors import DataError

    with pytest.raises(DataError, match=r"data\.public=500.*class '0'"):
        launch_in(tmp_path, "data.public=500", "engine=inline")
    with pytest.raises(ConfigError, match=r"data\.public"):
        config("data.public=0")


def test_the_server_pretrains_tells_and_replaces(tmp_path, handy):
    result = handy(tmp_path, "rounds=2", "evaluation.last_k=2")
    lines = [line["metrics"] for line in RunFolder(result.folder).metrics()]
    assert len(lines) == 3  # two rounds and the replacement
    assert lines[-1]["model/replaced"] == 1.0
    assert result.rows[0].metrics["macro_recall"] == lines[-1]["test/macro_recall"] == pytest.approx(0.1)
    started = [line["test/macro_recall"] for line in lines[:2]]
    assert min(started) > 0.3  # thirty epochs on 50 rows: far above a fresh start's first round


def test_only_the_client_that_is_told_something_hears_it(tmp_path, handy):
    heard = {}

    class Listening(Handy):
        def on_train_replies(self, server_round, replies):
            heard["told"] = self.memory["told"].tolist()
            return {}

    handy(tmp_path, "rounds=1", method=Listening)
    assert heard["told"] == [0, 10, 20, -1]


def test_resumed_behind_a_replacement_the_run_ends_the_same(tmp_path, handy):
    whole = handy(tmp_path / "a", "rounds=2")
    STOP["once"] = True
    with pytest.raises(RunFailed, match="behind the replacement"):
        handy(tmp_path / "b", "rounds=2")
    (folder,) = (tmp_path / "b" / "runs" / "default").iterdir()
    resumed = handy(folder)
    assert weights_sha(resumed) == weights_sha(whole)
    assert [r.metrics for r in resumed.rows] == [r.metrics for r in whole.rows]


@pytest.mark.parametrize(("weighting", "more"), [("view", 7), ("real", 0)])
def test_rows_nobody_measured_count_only_where_asked(tmp_path, handy, weighting, more):
    from fedimb.clientapp.local_training import LocalTraining

    seen = []
    original = LocalTraining._weight

    def weight(self, prepared, result):
        value = original(self, prepared, result)
        seen.append(value - len(prepared.context.data.rows("train")))
        return value

    LocalTraining._weight = weight
    try:
        handy(tmp_path, "rounds=1", f"aggregation_weight={weighting}")
    finally:
        LocalTraining._weight = original
    assert seen == [more] * 4
