from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

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
