"""Fixtures of every folder: caches apart from the user's, and one migrated MLflow database that tests copy."""

import os
import re
import sqlite3
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from warm import WarmPython

from fedimb import process_state

# A change is judged on the same examples every time; new ones are looked for with
# make test ARGS="--hypothesis-profile=explore"
settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", max_examples=1000)
settings.load_profile("fixed")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m slow`` or ``-m "alone and not slow"``, pass over files without one: all take half a minute."""
    asked = re.match(r"(slow|alone)( and |$)(?!.* or )", config.option.markexpr)
    if asked and collection_path.name.startswith("test_") and collection_path.suffix == ".py":
        return f"mark.{asked[1]}" not in collection_path.read_text(encoding="utf-8") or None
    return None


def pytest_collection(session: pytest.Session) -> None:
    """Collecting nine thousand tests makes millions of objects that stay: Python need not look through them again."""
    process_state.collect_seldom()


def pytest_collection_finish(session: pytest.Session) -> None:
    process_state.collect_as_usual()


@pytest.fixture(scope="session", autouse=True)
def no_fsync():
    """No test cuts the power: files are written to the system and not waited for, some twenty times in each run."""
    before = os.fsync

    def not_waited_for(file):
        os.fstat(file if isinstance(file, int) else file.fileno())  # a closed one is an error still

    os.fsync = not_waited_for
    yield
    os.fsync = before


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


@pytest.fixture(scope="session", autouse=True)
def one_picture(cache_dir):
    """In this process all run folders get the first run's picture of its partition: each new one takes half a second.

    That each run has its own is seen to in tests/report/test_plots.py. Where no test file imports what draws, nothing
    is changed.
    """
    manifest, drawn = sys.modules.get("fedimb.rundir.manifest"), []
    if manifest is None:
        yield
        return
    draw = manifest._draw_partition

    def copied(federation, path):
        if drawn:
            path.write_bytes(drawn[0])
        else:
            draw(federation, path)
            drawn.append(path.read_bytes())

    manifest._draw_partition = copied
    yield
    manifest._draw_partition = draw


@pytest.fixture(scope="session", autouse=True)
def no_program_of_six_hundred_files():
    """The code that a run notes is without the tests' own modules, which are all imported by now, and used by none.

    Those that register a part count still, for a run that uses it. Where no test file imports what notes them, nothing
    is changed.
    """
    source_files = sys.modules.get("fedimb.rundir.source_files")
    if source_files is None:
        yield
        return
    imported = source_files._imported
    source_files._imported = lambda: [name for name in imported() if not name.startswith("tests.")]
    yield
    source_files._imported = imported


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
