"""MLflow's store: its address, creating the database once before several processes use it, the link to charts.

It guards against problems measured with MLflow 3.17: processes that create the same SQLite file destroy it, a relative
address means another database in another folder, and a file that cannot be opened is retried for 100 s.
"""

import contextlib
import hashlib
import importlib
import logging
import os
import re
import shlex
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from fedimb import process_env
from fedimb.errors import ConfigError, FedimbError, nearest
from fedimb.process_state import log_level
from fedimb.tracking import template
from fedimb.tracking.lock import locked
from fedimb.tracking.view import EXPERIMENT_TAGS, NOTE_TAG, VIEW, WRITTEN_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Run

    Client = MlflowClient

LOUD = "mlflow.store.db.utils"
"""The logger on which MLflow prints a database's error with a traceback, before it raises it."""
_DATABASE_ERROR = re.compile(r"\(\w[\w.]*Error\) ")
_LONGEST_REASON = 300  # characters
SQLITE = "sqlite:///"
SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")
PORT = 5000

# A dead server must cost a training run seconds. MLflow's own defaults are 7 retries of 120 s.
_TRAINING_TIMEOUT_S = 5
_SYNC_TIMEOUT_S = 60
_CREATE_WAIT_S = 300.0
_OPEN_WAIT_S = 20.0


def resolve_uri(uri: str | None, output_dir: str | Path) -> str:
    """The tracking address as stored and printed: absolute, so it means the same in every working folder.

    Args:
        uri: null for ``<output_dir>/mlflow.db``, else ``sqlite:///path`` (a relative path counts from the
            working folder), ``http(s)://host:port`` or another database address that MLflow takes.
        output_dir: where runs go.

    Raises:
        ConfigError: a plain folder, an unknown scheme, or a path that a database address cannot hold.
    """
    if uri is None:
        uri = f"{SQLITE}{Path(output_dir).expanduser().resolve() / 'mlflow.db'}"
    scheme = uri.split(":", 1)[0].split("+", 1)[0] if "://" in uri else ""
    if scheme not in SCHEMES:
        raise ConfigError(
            f"tracking.uri={uri!r}: not an address of an MLflow database or server; give sqlite:///path/mlflow.db"
            f" or http://host:port.{nearest(scheme, SCHEMES) if scheme else ''}"
        )
    if scheme in ("http", "https"):
        return uri.rstrip("/")
    if scheme != "sqlite":
        return uri
    if not uri.startswith(SQLITE) or uri in (SQLITE, f"{SQLITE}:memory:"):
        raise ConfigError(f"tracking.uri={uri!r} names no file; give sqlite:///path/mlflow.db")
    path = Path(uri.removeprefix(SQLITE)).expanduser().resolve()
    if bad := sorted(set("%?#") & set(str(path))):
        raise ConfigError(
            f"tracking.uri: {path} holds {' '.join(bad)}, which a database address cannot; choose another folder"
        )
    return f"{SQLITE}{path}"


def shown(uri: str, hide_user: bool = False) -> str:
    """The address without a password, for messages; with ``hide_user`` as one types it into a browser."""
    parts = urlsplit(uri)
    if not parts.password and not (hide_user and parts.username):
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host if hide_user else f"{parts.username}:***@{host}"))


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite address, or None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def connect(uri: str, patient: bool = False) -> "MlflowClient":
    """An ``MlflowClient``. SQLite: call `prepare_store` before.

    Args:
        patient: wait a minute for a slow server (nobody trains meanwhile) instead of seconds.
    """
    mlflow = _imported()
    process_env.set_mlflow_timeout(_SYNC_TIMEOUT_S if patient else _TRAINING_TIMEOUT_S)
    with log_level(LOUD, logging.CRITICAL):  # two lines per new database
        return mlflow.MlflowClient(tracking_uri=uri)


def _imported() -> ModuleType:
    """The mlflow package, quiet and offline. The only place that imports it first: it reads some of these then."""
    process_env.set_defaults(process_env.MLFLOW)
    import mlflow

    return mlflow


def preload(uri: str | None) -> None:
    """Import what is needed to send to this address (null: a SQLite database), before the run has anything to send."""
    _imported()
    if uri is None or urlsplit(uri).scheme not in ("http", "https"):
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


def reason_of(error: Exception) -> str:
    """MLflow's or the database's message as one line, without SQL or a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    database = next((line for line in lines if _DATABASE_ERROR.match(line)), None)
    text = database or next(iter(lines), type(error).__name__)
    if "database is locked" in text:
        text = "the database is locked: another program is writing to it"
    return text[:_LONGEST_REASON]


@contextlib.contextmanager
def one_line_errors(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into one line; it also logs a database's error with a traceback, which is left out.

    Raises:
        FedimbError: the store cannot be used; names it and the reason.
    """
    _imported()
    from mlflow.exceptions import MlflowException

    with log_level(LOUD, logging.CRITICAL):
        try:
            yield
        except MlflowException as error:
            raise FedimbError(
                f"MLflow at {shown(uri)} cannot be used: {reason_of(error)}; check that it is running "
                "and that nothing else holds it, or set tracking=none"
            ) from error


def error_code(error: Exception) -> str:
    """MLflow's error code, or an empty string."""
    return str(getattr(error, "error_code", ""))


def prepare_store(uri: str, experiment: str, artifact_root: str | Path | None = None, patient: bool = False) -> str:
    """Create the database and the experiment when missing; returns the experiment's id.

    Call it once before any fan-out. Processes that start together wait for each other.

    Args:
        uri: as `resolve_uri` returns it.
        experiment: the study's name.
        artifact_root: folder for artifacts of a new experiment in a SQLite store (null: ``mlartifacts``
            beside the database); a server keeps its own.
        patient: see `connect`.

    Raises:
        FedimbError: the database or server cannot be used, or the experiment was deleted.
    """
    path = sqlite_path(uri)
    if path is None:
        digest = hashlib.sha256(uri.encode()).hexdigest()[:16]
        lock = Path(tempfile.gettempdir()) / f"fedimb-mlflow-{os.getuid()}-{digest}.lock"
        with locked(lock, _CREATE_WAIT_S), one_line_errors(uri):
            return _experiment(connect(uri, patient), uri, experiment, None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        root = Path(artifact_root or path.parent / "mlartifacts").expanduser().resolve()
        _imported()  # seconds: not while others wait for the lock
        with locked(path.with_name(path.name + ".lock"), _CREATE_WAIT_S), one_line_errors(uri):
            client = _client_of(path, uri, patient) if path.exists() else _new_database(path, uri, patient)
            return _experiment(client, uri, experiment, root.as_uri())
    except (OSError, sqlite3.Error) as error:
        raise FedimbError(
            f"cannot open the MLflow database {path}: {error}; check the folder's rights and space,"
            " or set tracking.uri, or tracking=none"
        ) from error


def _client_of(path: Path, uri: str, patient: bool) -> Any:
    _open(path)
    return connect(uri, patient)


def _new_database(path: Path, uri: str, patient: bool) -> Any:
    """A client of a database made now, from the template if there is one (`fedimb.tracking.template`)."""
    copied = template.copy_template(path)
    client = _client_of(path, uri, patient)
    if not copied:
        template.keep_template(path)
    return client


def _open(path: Path) -> None:
    """Open or make the file: a bad one fails now, not after 100 s. WAL: readers never stop a writer."""
    connection = sqlite3.connect(path, timeout=_OPEN_WAIT_S)
    try:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=wal")  # kept in the file; a network disk may decline, harmless
    finally:
        connection.close()


def _experiment(client: Any, uri: str, name: str, location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
        except MlflowException as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":  # another machine was faster on the same server
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        raise FedimbError(
            f"experiment '{name}' at {shown(uri)} was deleted; bring it back with"
            f" `mlflow experiments restore --experiment-id {found.experiment_id}` or set tracking.experiment"
        )
    for key, value in EXPERIMENT_TAGS.items():
        if found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def write_note(client: Any, experiment_id: str, note: str) -> None:
    """Give an experiment its description, unless a person wrote one or changed it."""
    tags = client.get_experiment(experiment_id).tags
    present = tags.get(NOTE_TAG, "")
    if present == note or (present and _digest(present) != tags.get(WRITTEN_TAG)):
        return
    client.set_experiment_tag(experiment_id, WRITTEN_TAG, _digest(note))
    client.set_experiment_tag(experiment_id, NOTE_TAG, note)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def charts_link(uri: str, experiment: str) -> tuple[str, str]:
    """How to see the charts: (command that opens the UI, address of the study's charts grouped by row and setting).

    The command is empty for a server, which is already running. When the experiment cannot be looked up
    (server down, nothing tracked yet) the address is the UI's front page: a link never stops a run.
    """
    path = sqlite_path(uri)
    is_server = uri.startswith(("http://", "https://"))
    base = shown(uri, hide_user=True) if is_server else f"http://localhost:{PORT}"
    command = (
        ""
        if is_server
        else "MLFLOW_DISABLE_TELEMETRY=true "
        + shlex.join(["mlflow", "ui", "--backend-store-uri", shown(uri), "--port", str(PORT)])
    )
    if path is not None and not path.is_file():
        return command, f"{base}/"
    try:
        found = _experiment_id(uri, path, experiment)
    except Exception as error:
        logging.getLogger(__name__).debug("no link to the charts of %s: %s", experiment, error)
        found = None
    if found is None:
        return command, f"{base}/"
    query = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={VIEW}"
    return command, f"{base}/#/experiments/{found}/runs?{query}"


def _experiment_id(uri: str, path: Path | None, experiment: str) -> str | None:
    """An experiment's id; read from a database's file, because importing MLflow takes longer than a table of results.

    Raises:
        Exception: whatever MLflow raises if the store cannot be used.
    """
    if path is not None:
        try:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as database:
                query = "SELECT experiment_id FROM experiments WHERE name = ?"
                rows = database.execute(query, (experiment,)).fetchall()
            if len(rows) == 1:
                return str(rows[0][0])
        except sqlite3.Error as error:
            logging.getLogger(__name__).debug("MLflow is asked, because %s cannot be read: %s", path, error)
    found = connect(uri).get_experiment_by_name(experiment)
    return None if found is None else str(found.experiment_id)
