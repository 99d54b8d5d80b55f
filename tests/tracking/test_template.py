"""A copy of the template is the database that MLflow would have made."""

import os
import shutil
import sqlite3

import pytest

from fedimb.tracking.store import connect, prepare_store
from fedimb.tracking.template import copy_template, keep_template, template_path


@pytest.fixture
def made(template):
    """A database made by MLflow itself; the template was kept as it was made."""
    assert template_path().is_file()
    return template


def rows(path, query):
    with sqlite3.connect(path) as database:
        return database.execute(query).fetchall()


def test_a_copy_has_the_tables_of_a_migrated_one_and_nothing_else(made, tmp_path):
    path = tmp_path / "new" / "mlflow.db"
    assert prepare_store(f"sqlite:///{path}", "study") == "1"
    for query in ("SELECT type, name, sql FROM sqlite_master ORDER BY name", "SELECT * FROM alembic_version"):
        assert rows(path, query) == rows(made, query)
    assert rows(path, "SELECT name FROM experiments ORDER BY experiment_id") == [("Default",), ("study",)]
    assert rows(path, "SELECT artifact_location FROM experiments WHERE name = 'Default'") == [
        (os.path.join(os.getcwd(), "mlruns", "0"),)
    ]
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    client = connect(f"sqlite:///{path}")
    client.set_tag(client.create_run("1").info.run_id, "a", "b")
    assert rows(template_path(), "SELECT count(*) FROM runs") == [(0,)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"not a database" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: rows(path, "INSERT INTO experiments (name, experiment_id) VALUES ('x', 7)"),
        lambda path: rows(path, "DROP TABLE alembic_version"),
    ],
)
def test_a_template_that_is_not_as_it_was_kept_is_not_used(made, tmp_path, monkeypatch, damage):
    kept = template_path().read_bytes()
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path))
    template_path().parent.mkdir()
    template_path().write_bytes(kept)
    damage(template_path())
    assert not copy_template(tmp_path / "mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()
    assert not template_path().exists()


def test_only_an_empty_database_is_kept(made, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path))
    keep_template(made)  # it has the experiment of the tests
    assert not template_path().exists()
    empty = shutil.copy(made, tmp_path / "empty.db")
    rows(empty, "DELETE FROM experiment_tags")
    rows(empty, "DELETE FROM experiments WHERE name != 'Default'")
    keep_template(empty)
    assert copy_template(tmp_path / "copy.db")
