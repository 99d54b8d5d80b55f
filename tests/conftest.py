"""Fixtures of every folder: caches apart from the user's, and one migrated MLflow database that tests copy."""

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import settings
from warm import WarmPython

# A change is judged on the same examples every time; new ones are looked for with
# make test ARGS="--hypothesis-profile=explore"
settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", max_examples=1000)
settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory):
    """Stores are built below the tests' own folder, also by the processes that tests start."""
    before = os.environ.get("FEDIMB_CACHE_DIR")
    os.environ["FEDIMB_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["FEDIMB_CACHE_DIR"]
    else:
        os.environ["FEDIMB_CACHE_DIR"] = before


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """An empty, migrated database: making one costs seconds on a busy machine, copying it nothing."""
    from fedimb.tracking.store import prepare_store

    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    prepare_store(f"sqlite:///{path}", "template")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # all of it in the one file that is copied
    connection.close()
    return path


@pytest.fixture(scope="session")
def warm(cache_dir):
    """Processes of their own at the price of a fork, with the test support on their path."""
    python = WarmPython(Path(__file__).parent / "support", imports=["mlflow.store.tracking.sqlalchemy_store"])
    yield python
    python.close()
