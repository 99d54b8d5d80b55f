from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import RecordDict
from small_runs import config

from fedimb.annotation.items import read_map
from fedimb.annotation.oracles import check_oracle, open_oracle
from fedimb.annotation.worklist import WorklistOracle
from fedimb.clientapp.context import Site
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.data.views import ClientData
from fedimb.errors import ConfigError, DataError

WORKLIST = {"name": "worklist", "readers": 2}


@pytest.fixture(scope="module")
def settings():
    return config("seed=3"), config("seed=4")


@pytest.fixture
def context_of(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDIMB_SITE_DIR", raising=False)
    data = ClientData(pictures(), np.arange(8), np.empty(0, np.int64))
    data.hide_labels()

    def make(settings, client=3):
        return SimpleNamespace(data=data, state=RecordDict(), client=client, config=settings)

    return make


def test_a_worklist_is_found_again_by_the_same_run_and_by_no_other(context_of, settings):
    first = open_oracle(WORKLIST, context_of(settings[0]))
    assert isinstance(first, WorklistOracle)
    assert first.folder.parts[:3] == ("sites", "client-003", "worklists")
    assert first.folder.name.startswith("s3-")
    assert open_oracle(WORKLIST, context_of(settings[0])).folder == first.folder
    assert open_oracle(WORKLIST, context_of(settings[0], client=4)).folder != first.folder
    assert open_oracle(WORKLIST, context_of(settings[1])).folder.name.startswith("s4-")


def test_a_site_says_where_its_worklists_are_whatever_the_run_says(context_of, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDIMB_SITE_DIR", str(tmp_path / "own"))
    oracle = open_oracle({**WORKLIST, "folder": "/elsewhere"}, context_of(settings[0]))
    oracle.ask(np.arange(4), 1)
    assert oracle.folder.parent == tmp_path / "own" / "worklists"
    assert len(read_map(oracle.folder)) == 4


def test_clients_see_their_items_in_orders_of_their_own(context_of, settings):
    orders = []
    for client in (0, 1):
        oracle = open_oracle({"name": "worklist"}, context_of(settings[0], client))
        oracle.ask(np.arange(8), 1)
        orders.append([item.row for item in read_map(oracle.folder)])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(8))


def test_readers_are_asked_without_a_label_being_read(context_of, settings):
    context = context_of(settings[0])
    assert (context.data.store.y == -1).all()
    open_oracle({"name": "worklist"}, context).ask(np.arange(4), 1)  # shows pictures of a store without labels


def test_what_a_worklist_cannot_do_is_refused_before_the_run(pictures, tmp_path):
    store = pictures()
    check_oracle(WORKLIST, Site("multiclass", store.class_names, store))
    with pytest.raises(ConfigError, match="Did you mean 'readers'"):
        check_oracle({"name": "worklist", "reader": 2}, Site("multiclass", store.class_names, store))
    with pytest.raises(DataError, match="name no patients"):
        check_oracle({**WORKLIST, "per_patient": 1}, Site("multiclass", store.class_names, store))
    same = SourceData(np.zeros((2, 3), np.float32), np.array([0, 1]), ("A b", "a_b"))
    alike = Store.build(same, tmp_path / "alike", "f")
    with pytest.raises(ConfigError, match="look the same"):
        check_oracle(WORKLIST, Site("multiclass", alike.class_names, alike))
