"""A cold standby: a copy of a deployment that another machine can take over when the coordinator is lost.

Flower's open SuperLink keeps its state in SQLite, which one process writes: two of them cannot serve one deployment. So
a copy is made now and then, while everything works, and is refused as a coordinator until somebody says that the first
one is gone. The database is copied by ``VACUUM INTO``, which reads one moment of it; a run folder by the order in which
it is written, and each copy is checked as a resume would check it before it takes the place of the copy before.
"""

import contextlib
import datetime as dt
import json
import os
import shutil
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedimb.atomic import write_atomic
from fedimb.deploy.coordinator.deployment import Deployment
from fedimb.deploy.coordinator.superlink import database
from fedimb.deploy.files import write_private
from fedimb.deploy.pki import fingerprint
from fedimb.errors import ConfigError, FedimbError, RunDiverged, RunFailed
from fedimb.plain import JsonObject
from fedimb.rundir.arrival_journal import FILE as ARRIVALS
from fedimb.rundir.arrival_journal import check_replies
from fedimb.rundir.checkpoints import FIXED, Checkpoints
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.seal import CHECKPOINT, CHECKPOINT_BEFORE, GROWING, SEAL

MARK = "standby.json"
"""The file that makes a folder a standby's: of which deployment, and when it was copied."""

_OWN = ("state", "logs", "flwr", "runs")
"""Folders that are not copied as they are: the first three are of a running coordinator, runs are copied one by one."""
_FIRST = (SEAL, CHECKPOINT, CHECKPOINT_BEFORE)
_TRIES = 5
_SKIPPED = ("lock", "processes.json")


@dataclass(frozen=True)
class StandbyCopy:
    """What a standby holds.

    Attributes:
        folder: of the standby.
        copied: when, UTC.
        sites: that the database knows.
        runs: name of each run -> rounds that its checkpoint covers; None: no checkpoint yet.
    """

    folder: str
    copied: str
    sites: int
    runs: dict[str, int | None]


def copy_deployment(deployment: Deployment, target: Path) -> StandbyCopy:
    """Copy a deployment, which may be working, into a standby's folder; a copy made before is replaced.

    Raises:
        ConfigError: the folder is something else than a standby of this deployment, or within it.
        RunFailed: the database cannot be read; or a run folder cannot be copied so that a resume could use it. What
            the standby held of it before stays.
    """
    if is_standby(deployment):
        raise ConfigError(f"{deployment.root} is a standby itself: give --deployment, the coordinator's own folder")
    target = target.expanduser().absolute()
    _check_target(deployment, target)
    standby = Deployment(target)
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = {"deployment": deployment.config.name, "authority": _authority(deployment), "host": socket.gethostname()}
    _write_mark(standby, about | {"copied": None})  # from the first file on, it is not a coordinator's folder
    for path in sorted(deployment.root.iterdir()):
        if path.name not in (*_OWN, MARK):
            _copy_tree(path, target / path.name)
    sites = _copy_database(database(deployment), database(standby))
    runs = {str(path.relative_to(deployment.file("runs"))): path for path in _run_folders(deployment)}
    rounds = {name: _copy_run(path, standby.file("runs", name)) for name, path in runs.items()}
    _remove_others(standby, set(runs))
    copied = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    _write_mark(standby, {**about, "copied": copied})
    return StandbyCopy(str(target), copied, sites, rounds)


def is_standby(deployment: Deployment) -> bool:
    """Whether a folder is a standby's copy that nobody has taken over."""
    return deployment.file(MARK).exists()


def refuse_standby(deployment: Deployment) -> None:
    """Raise ConfigError if the folder is a standby's: two coordinators would give orders to the same sites."""
    if not is_standby(deployment):
        return
    mark = read_mark(deployment)
    raise ConfigError(
        f"{deployment.root} is a standby of {mark['deployment']} on {mark['host']}, copied {mark['copied']}: when that "
        f"coordinator is down and stays down, run fedimb deploy take-over --deployment {deployment.root}"
    )


def read_mark(standby: Deployment) -> JsonObject:
    """What a standby's mark says. Raises ConfigError if the folder is not a standby's, or the mark is damaged."""
    try:
        mark: JsonObject = json.loads(standby.file(MARK).read_bytes())
        return {key: mark[key] for key in ("deployment", "authority", "host", "copied")}
    except FileNotFoundError:
        raise ConfigError(f"{standby.root} is not a standby's folder (no {MARK})") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{standby.file(MARK)} is damaged: copy the deployment again") from None


def take_over(standby: Deployment) -> list[str]:
    """Make a standby the coordinator. Returns the names of the runs that have not ended, to be resumed.

    Raises:
        ConfigError: not a standby, its copy is not complete, or the coordinator still answers at its host and port.
    """
    mark = read_mark(standby)
    if mark["copied"] is None:
        raise ConfigError(f"{standby.root} was not copied completely: use another copy, or copy again")
    config = standby.config
    if answers(standby):
        raise ConfigError(
            f"the coordinator of {config.name} answers at {config.host}:{config.port}: two of them would give orders "
            "to the same sites; stop it for good, and let the host's name lead here only afterwards"
        )
    standby.file(MARK).unlink()
    going_on = []
    for path in _run_folders(standby):
        folder = RunFolder.open(path)
        with contextlib.suppress(FedimbError):
            if folder.status() == "finished":
                continue
        going_on.append(str(path.relative_to(standby.file("runs"))))
    return going_on


def answers(deployment: Deployment, seconds: float = 5.0) -> bool:
    """Whether somebody shows a certificate of this deployment's authority at its host and port."""
    trust = ssl.create_default_context(cafile=str(deployment.file("ca.crt")))
    config = deployment.config
    with (
        contextlib.suppress(OSError),
        socket.create_connection((config.host, config.port), timeout=seconds) as plain,
        trust.wrap_socket(plain, server_hostname=config.host),
    ):
        return True
    return False


def _authority(deployment: Deployment) -> str:
    return fingerprint(deployment.file("ca.crt").read_bytes())


def _check_target(deployment: Deployment, target: Path) -> None:
    root = deployment.root.resolve()
    if target.resolve().is_relative_to(root) or root.is_relative_to(target.resolve()):
        raise ConfigError(f"--to {target}: the standby cannot be in the deployment's folder, nor around it")
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigError(f"--to {target} is not a folder: give another")
    if not any(target.iterdir()):
        return
    if not (target / MARK).exists():
        raise ConfigError(f"--to {target} is not empty and not a standby's folder: give another")
    if read_mark(Deployment(target))["authority"] != _authority(deployment):
        raise ConfigError(f"--to {target} is the standby of another deployment: give another folder")


def _write_mark(standby: Deployment, mark: dict[str, object]) -> None:
    write_atomic(standby.file(MARK), (json.dumps(mark, indent=1) + "\n").encode())


def _copy_database(source: Path, target: Path) -> int:
    """Copy one moment of a SuperLink's database, which may be in use; returns how many nodes it knows."""
    if not source.is_file():  # the servers have not been started yet
        target.unlink(missing_ok=True)
        return 0
    made = target.with_suffix(".next")
    made.unlink(missing_ok=True)
    try:
        write_private(made, b"")  # VACUUM INTO writes into an empty file, whose mode stays
        with contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", timeout=30, uri=True)) as connection:
            connection.execute("VACUUM INTO ?", (str(made),))
        with contextlib.closing(sqlite3.connect(made)) as connection:
            if (found := connection.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                raise RunFailed(f"{made} is not a whole database ({found}): is {source} damaged?")
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            nodes = connection.execute("SELECT count(*) FROM node").fetchone()[0] if "node" in tables else 0
    except sqlite3.Error as error:
        raise RunFailed(f"{source}: {error}: the standby keeps the copy it had") from None
    os.replace(made, target)
    return int(nodes)


def _run_folders(deployment: Deployment) -> Iterator[Path]:
    """The run folders below ``runs``: those that have a configuration."""
    waiting = [deployment.file("runs")]
    while waiting:
        folder = waiting.pop()
        if (folder / "config.json").is_file():
            yield folder
        elif folder.is_dir():
            waiting += sorted((path for path in folder.iterdir() if _is_shown_folder(path)), reverse=True)


def _is_shown_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not path.name.startswith(".")


def _copy_run(source: Path, target: Path) -> int | None:
    """Copy a run folder, which may be working, so that a resume can use the copy; returns the rounds it covers."""
    made = target.with_name(f".{target.name}.next")
    why: FedimbError | OSError | None = None
    for _ in range(_TRIES):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700, parents=True)
        try:
            _copy_in_order(source, made)
            rounds = _usable_rounds(made)
        except (FedimbError, OSError) as error:  # it was written to meanwhile
            why = error
            continue
        shutil.rmtree(target, ignore_errors=True)
        os.replace(made, target)
        return rounds
    shutil.rmtree(made, ignore_errors=True)
    raise RunFailed(f"{source} could not be copied so that it can be resumed ({why}): the standby keeps what it had")


def _copy_in_order(source: Path, target: Path) -> None:
    """Copy the seal and the checkpoints first, what they build on after them, and what only grows last.

    The lines of arrivals come before the replies, which are written before their lines: each line has its reply.

    Files that do not change are there before a checkpoint builds on them, so a copy of a working run holds at least
    what its checkpoints need. A run that ended meanwhile has another seal: that copy is refused.
    """
    before, apart = _seal_of(source), (*_FIRST, ARRIVALS, *GROWING, *_SKIPPED)
    for name in (*_FIRST, ARRIVALS):
        with contextlib.suppress(FileNotFoundError):
            _copy_file(source / name, target / name)
    for path in sorted(source.rglob("*")):
        name = str(path.relative_to(source))
        if path.is_file() and not path.is_symlink() and not name.endswith(".tmp") and name not in apart:
            with contextlib.suppress(FileNotFoundError):  # a temporary file that got its name meanwhile
                _copy_file(path, target / name)
    for name in GROWING:
        with contextlib.suppress(FileNotFoundError):
            _copy_file(source / name, target / name)
    if _seal_of(source)[1] != before[1]:
        raise RunFailed("the run ended while it was copied")


def _seal_of(folder: Path) -> tuple[int, bool]:
    seal = RunFolder(folder).seal
    return (-1, False) if seal is None else (seal.number, seal.ended)


def _usable_rounds(copy: Path) -> int | None:
    """Check a copy as a resume does, without changing it; returns the rounds that it need not repeat.

    Raises:
        FedimbError: a resume could not use it.
    """
    folder = RunFolder.open(copy)
    folder.check_sealed(*FIXED)
    found = Checkpoints(folder, lambda versions: None).newest()
    if not _seal_of(copy)[1] and folder.read_json("status.json", {}).get("kind") != RunDiverged.__name__:
        progress = {} if found is None else found.info["progress"]
        first = int(progress.get("server_round", 0)) - int(progress.get("round_in_step", 0))
        check_replies(copy, first, 0 if found is None else int(found.info.get("live", {}).get("taken", 0)))
    return None if found is None else int(found.info["progress"]["server_round"])


def _remove_others(standby: Deployment, runs: set[str]) -> None:
    """Runs that the coordinator no longer has."""
    for path in list(_run_folders(standby)):
        if str(path.relative_to(standby.file("runs"))) not in runs:
            shutil.rmtree(path)


def _copy_tree(source: Path, target: Path) -> None:
    if source.is_symlink() or not (source.is_dir() or source.is_file()):
        return
    if source.is_file():
        _copy_file(source, target)
        return
    target.mkdir(mode=0o700, exist_ok=True)
    there = {path.name for path in source.iterdir()}
    for path in sorted(source.iterdir()):
        _copy_tree(path, target / path.name)
    for path in target.iterdir():
        if path.name not in there:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _copy_file(source: Path, target: Path) -> None:
    """Copy through a temporary file, readable by the owner only as long as the source is."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = target.with_name(f".{target.name}.part")
    write_private(made, source.read_bytes())
    shutil.copystat(source, made)
    os.replace(made, target)
