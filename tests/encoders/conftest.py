import pytest

from tests.encoders.recipes import store_of


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "store")


@pytest.fixture
def make_store(tmp_path):
    return lambda name="store", **options: store_of(tmp_path / name, **options)
