"""What may be deleted, said before it is, and deleted so that a crash half-way leaves no half run behind."""

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedimb.cli.facts import age, in_use, read_facts, shown_age, shown_bytes, size_of
from fedimb.cli.find import run_folders
from fedimb.data.store import cache_dir
from fedimb.engine.processes import marked, start_time
from fedimb.errors import ConfigError, FedimbError
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.seal import Damaged

DELETING = ".deleting-"
TEMP = Path("/tmp")  # where fedimb.engine.ray puts a private head, whose sockets need a short path
_ENGINE = re.compile(r"fedimb-[a-z0-9_]{8}")  # folder of a private Ray head (fedimb.engine.ray)
_STARTS = re.compile(r"[0-9]+|flower")  # what it holds: a folder per start, and that of fedimb.engine.flower
_CACHED = re.compile(r"\.?[0-9a-f]{32}(\.|$)")  # a hash, or a dot and a hash while it is being built
_SETTLED_S = 3600.0  # younger leftovers may belong to a process that is just starting


@dataclass(frozen=True)
class Rubbish:
    """Something to delete: a file or folder, its bytes, and why it may go."""

    path: Path
    size: int
    why: str


@contextlib.contextmanager
def held(folders: list[Path]) -> Iterator[None]:
    """Hold the locks of all runs. Raises FedimbError when a process works on one."""
    with contextlib.ExitStack() as stack:
        for path in folders:
            folder = RunFolder.open(path)
            folder.lock()
            stack.callback(folder.unlock)
        yield


def delete_run(path: Path) -> None:
    """Delete a run folder whose lock is held: out of sight in one step, then file by file."""
    hidden = path.with_name(f"{DELETING}{path.name}.{os.getpid()}")
    try:
        path.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        raise FedimbError(f"cannot delete {path}: {error}; check the folder's rights and try again") from error


def delete(one: Rubbish) -> bool:
    """Delete one thing; False when it is in use again or cannot be deleted (said, not raised: the rest may go)."""
    try:
        if (one.path / "config.json").exists():
            with held([one.path]):
                delete_run(one.path)
        elif one.path.is_dir():
            shutil.rmtree(one.path)
        else:
            one.path.unlink()
    except (OSError, FedimbError) as error:
        print(f"kept {one.path}: {error}", file=sys.stderr)
        return False
    return True


def confirmed(plan: list[Rubbish], yes: bool) -> bool:
    """Print what would go, then ask unless ``yes``. Raises ConfigError where nobody can answer."""
    for one in plan:
        print(f"{shown_bytes(one.size):>8}  {one.path}  ({one.why})")
    total = shown_bytes(sum(one.size for one in plan))
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError(f"nothing deleted: nobody can be asked here; give --yes to delete these {total}")
    return input(f"delete these {total}? [y/N] ").strip().lower() in ("y", "yes")


def find_rubbish(output_dir: str | Path, days: float, cache: bool) -> list[Rubbish]:
    """What ``fedimb runs gc`` deletes: failed and killed runs, what crashes left, and with ``cache`` the cache.

    A run that waits for a person is kept, however long: it is not unfinished by accident. The cache is kept while a
    run below ``output_dir`` goes on.
    """
    plan: list[Rubbish] = []
    running = False
    for path in run_folders(output_dir):
        try:
            facts = read_facts(path)
        except Damaged as error:
            print(f"kept: {error}", file=sys.stderr)
            running |= in_use(path)
            continue
        running |= facts.status == "running"
        if facts.status in ("failed", "killed") and age(facts) >= days * 86_400:
            plan.append(Rubbish(path, size_of(path), f"{facts.status} {shown_age(age(facts))} ago"))
    going = {one.path for one in plan}
    plan += [Rubbish(path, _size(path), why) for path, why in _leftovers(output_dir, going)]
    if cache and running:
        print("the cache is kept: a run uses it", file=sys.stderr)
    elif cache:
        plan += [Rubbish(path, _size(path), "cache, made again when needed") for path in _cached()]
    return plan


def _size(path: Path) -> int:
    return size_of(path) if path.is_dir() else path.lstat().st_size


def _cached() -> list[Path]:
    """What fedimb itself put into its cache, by the form of the names: the folder may be shared with others."""
    young = time.time() - _SETTLED_S
    found = sorted(path for path in cache_dir().parent.glob("*/*") if _CACHED.match(path.name))
    return [path for path in found if not path.name.startswith(".") or path.lstat().st_mtime < young]


def _leftovers(output_dir: str | Path, going: set[Path]) -> Iterator[tuple[Path, str]]:
    """Half-deleted runs, files whose writer died, folders of Ray heads that are gone."""
    root = Path(output_dir).expanduser()
    for path in sorted(root.glob(f"*/{DELETING}*")):
        if not _writer_lives(path.name):
            yield path, "half deleted"
    for folder in run_folders(output_dir):
        if folder in going or in_use(folder):
            continue
        for path in sorted(folder.rglob(".*.tmp")):
            if not _writer_lives(path.name.removesuffix(".tmp")):
                yield path, "never completed"
    for path in _engine_folders():
        if not marked(str(path)):
            yield path, "folder of an engine that is gone"


def _engine_folders() -> list[Path]:
    """This user's settled folders of private Ray heads, by name and content: a temporary folder is everybody's."""
    if not Path("/proc").is_dir():  # whether a process still uses one cannot be known
        return []
    found = []
    for path in sorted(TEMP.glob("fedimb-*")):
        with contextlib.suppress(OSError):  # its engine has just closed, or it is not this user's to read
            stat = path.lstat()
            settled = time.time() - stat.st_mtime > _SETTLED_S
            own = stat.st_uid == os.getuid() and path.is_dir() and not path.is_symlink()
            if (
                own
                and settled
                and _ENGINE.fullmatch(path.name)
                and all(_STARTS.fullmatch(p.name) for p in path.iterdir())
            ):
                found.append(path)
    return found


def _writer_lives(name: str) -> bool:
    """Names end in the process id of their writer."""
    pid = name.rpartition(".")[2]
    return pid.isdigit() and start_time(int(pid)) is not None
