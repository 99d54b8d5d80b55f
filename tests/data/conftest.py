import copy

import pytest
import yaml

from fedimb import registry
from fedimb.data.prepare import prepare
from fedimb.data.store import open_store


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """One store cache for the session, away from the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDIMB_CACHE_DIR", str(folder))
        open_store.cache_clear()
        yield folder
    open_store.cache_clear()


@pytest.fixture
def toys():
    """Registrations made in a test end with it: suites over every registered part must not meet toys."""
    with registry.isolated():
        yield


def _group(name):
    from importlib.resources import files

    return yaml.safe_load((files("fedimb.configs") / name).read_text())


@pytest.fixture
def digits():
    return copy.deepcopy(_group("data/digits.yaml"))


@pytest.fixture
def table():
    return copy.deepcopy(_group("data/synthetic_table.yaml"))


@pytest.fixture
def dirichlet():
    return copy.deepcopy(_group("partition/dirichlet.yaml"))


@pytest.fixture
def federation(digits, dirichlet):
    """Digits over ten clients that hold out a fifth."""
    return prepare({**digits, "validation": 0.2}, dirichlet, clients=10, seed=3)
