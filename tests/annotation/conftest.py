from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from fedimb.annotation.items import read_map
from fedimb.annotation.settings import WorklistSettings
from fedimb.annotation.worklist import WorklistOracle
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.data.views import ClientData


@pytest.fixture
def store(tmp_path):
    torch.set_num_threads(1)
    x = np.arange(40, dtype=np.uint8).reshape(20, 1, 2)
    return Store.build(SourceData(x, np.arange(20) % 4, tuple("abcd"), scale=0.5), tmp_path / "store", "f")


@pytest.fixture
def client(store):
    return ClientData(store, np.array([9, 3, 5, 7, 1, 4]), np.array([2]))


@pytest.fixture
def context(client):
    return SimpleNamespace(data=client, state=RecordDict(), client=3)


@pytest.fixture
def pictures(tmp_path):
    """Makes a store of 12 pictures of three classes, two of which a spreadsheet would spoil."""

    def make(**more):
        x = (np.arange(12 * 64, dtype=np.uint16) % 17).astype(np.uint8).reshape(12, 1, 8, 8)
        source = SourceData(x, np.arange(12) % 3, ("benign", "+ve", "1-2"), scale=1 / 16, **more)
        return Store.build(source, tmp_path / "pictures", "f")

    return make


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "site" / "worklists" / "s0-abcdef01"


@pytest.fixture
def oracle():
    def make(folder, store, **settings):
        return WorklistOracle(folder, store, WorklistSettings(**settings), seed=7)

    return make


@pytest.fixture
def answer():
    """Writes what a spreadsheet would save: byte order mark, ``;``, CRLF. ``labels``: text by row of the store."""

    def write(folder, labels, name="anna.csv", cycle=1):
        lines = ["id;comment;label"]
        lines += [f'{i.id};"a; remark";{labels[i.row]}' for i in read_map(folder) if i.row in labels]
        path = folder / f"cycle-{cycle:02d}" / "returned" / name
        path.write_bytes(("\ufeff" + "\r\n".join([*lines, ""])).encode())
        return path

    return write
