"""A new SQLite database for MLflow as a copy: sixty tables made by migrations take seconds, a copy does not.

The first database that MLflow makes itself is kept, empty, in fedimb's cache, under MLflow's version and a hash of the
names of its migrations. MLflow checks the tables of a copy when it opens it, as those of any other database.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from fedimb.data.store import cache_dir

_log = logging.getLogger(__name__)
_FILLED = ("runs", "metrics", "params", "tags", "registered_models")
_HERE = "{working folder}"  # in the template: MLflow puts artifacts of its experiment Default below the working folder


def template_path() -> Path:
    """Where the template of the installed MLflow is kept."""
    found = find_spec("mlflow")
    folders = [
        Path(at) / "store" / "db_migrations" / "versions" for at in (found and found.submodule_search_locations) or ()
    ]
    names = sorted(file.name for folder in folders for file in folder.glob("*.py"))
    return cache_dir("mlflow") / f"{version('mlflow')}-{hashlib.sha256(repr(names).encode()).hexdigest()[:12]}.db"


def copy_template(path: Path) -> bool:
    """Make the missing database ``path`` from the template. The caller holds the lock on it.

    Returns:
        Whether it was made; False if there is no template, or one that cannot be used, which is then removed.
    """
    template = template_path()
    if not template.is_file():
        return False
    try:
        with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as scratch:
            copy = Path(scratch) / "new.db"
            copy.write_bytes(template.read_bytes())
            with contextlib.closing(sqlite3.connect(copy)) as database, database:
                if database.execute("PRAGMA quick_check").fetchone() != ("ok",) or not _is_empty(database):
                    raise sqlite3.DatabaseError("it is damaged")
                now = int(time.time() * 1000)
                database.execute(
                    "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?), creation_time = ?, "
                    "last_update_time = ?",
                    (_HERE, os.getcwd(), now, now),
                )
            os.replace(copy, path)
    except (OSError, sqlite3.Error) as error:
        _log.debug("%s is not used: %s", template, error)
        with contextlib.suppress(OSError):  # a cache that cannot be written: MLflow makes every database itself
            template.unlink()
        return False
    return True


def keep_template(path: Path) -> None:
    """Keep a database that MLflow has just made as the template. The caller holds the lock on it.

    It is not kept if it is not empty, or does not have the form that `copy_template` knows.
    """
    template = template_path()
    try:
        template.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=template.parent) as scratch:
            packed = Path(scratch) / "packed.db"
            with contextlib.closing(sqlite3.connect(path)) as database:
                database.execute("VACUUM INTO ?", (str(packed),))
            with contextlib.closing(sqlite3.connect(packed)) as database, database:
                places = database.execute("SELECT artifact_location FROM experiments").fetchall()
                here = os.getcwd() + os.sep
                if not _is_empty(database) or not str(places[0][0]).startswith(here):
                    _log.debug("%s is not kept as a template: it is not as expected", path)
                    return
                place = _HERE + str(places[0][0]).removeprefix(os.getcwd())
                database.execute("UPDATE experiments SET artifact_location = ?", (place,))
            os.replace(packed, template)
    except (OSError, sqlite3.Error) as error:  # without it the next database takes seconds, too
        _log.debug("no template of MLflow's database is kept: %s", error)


def _is_empty(database: sqlite3.Connection) -> bool:
    """Whether there is nothing but the experiment Default.

    Raises:
        sqlite3.Error: it does not have MLflow's tables.
    """
    filled = [table for table in _FILLED if database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()]
    names = database.execute("SELECT name FROM experiments").fetchall()
    versions = database.execute("SELECT version_num FROM alembic_version").fetchall()
    return not filled and names == [("Default",)] and len(versions) == 1
