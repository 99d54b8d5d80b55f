"""Which earlier runs of a study stand: those that a new run would repeat, because their identity is the same now.

The others are stale. They are moved to the folder ``stale`` beside them and run again; or, if so asked, the finished
ones are kept and marked, and every table and report then names their row with ``(stale)``.
"""

import contextlib
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedimb.atomic import write_atomic
from fedimb.config.load import from_json
from fedimb.errors import ConfigError, DataError, FedimbError, nearest
from fedimb.rundir.arrival_journal import follows_arrivals
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import FILE, Identity, Present, differences, of_json, problem_sha, read_identity
from fedimb.rundir.seal import Damaged
from fedimb.schema import RunConfig
from fedimb.study.work import REFERENCES, Done, Task, earlier, folder_of, judged
from fedimb.tracking.mlflow import mark_stale

ASIDE = "stale"
"""Folder of stale runs in a study's folder. No table or list reads it."""
MARK = "stale.json"
"""File in the folder of a stale run: what changed."""
ASKED = "asked for"
log = logging.getLogger("fedimb")


@dataclass(frozen=True)
class Reuse:
    """How earlier runs are used.

    Attributes:
        rerun: a row whose runs are run again in any case; ``""``: all rows; None: none.
        keep_stale: use finished runs even if they are stale, and mark them.
    """

    rerun: str | None = None
    keep_stale: bool = False


@dataclass
class Standing:
    """Earlier runs, judged.

    Attributes:
        done: outcomes that stand, and stale ones that are kept, by `Task.key`.
        unfinished: run folders to continue.
        kept: why a kept run is stale, by key.
        again, afresh: why a finished and an unfinished run was moved aside, by key.
        aside: where it was moved.
    """

    done: dict[str, Done]
    unfinished: dict[str, Path]
    kept: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    afresh: dict[str, str] = field(default_factory=dict)
    aside: Path | None = None

    def sentence(self) -> str:
        """One line for people; empty if there were no earlier runs."""
        parts = []
        if fresh := len(self.done) - len(self.kept):
            parts.append(f"reused {_runs(fresh, 'finished ')}")
        if stale := {key: why for key, why in self.again.items() if why != ASKED}:
            counted = str(len(stale)) if parts else _runs(len(stale), "finished ")
            parts.append(f"{counted} {_is(stale)} stale ({summary(stale.values())}) and run again")
        if self.afresh:
            counted = _runs(len(self.afresh), "unfinished ")
            parts.append(f"{counted} {_is(self.afresh)} stale ({summary(self.afresh.values())}) and begun afresh")
        if asked := len(self.again) - len(stale):
            parts.append(f"{_runs(asked)} repeated as asked")
        if self.kept:
            parts.append(
                f"kept {_runs(len(self.kept), 'stale ')} ({summary(self.kept.values())}), marked in every table"
            )
        if self.aside is not None:
            parts.append(f"earlier runs moved to {self.aside}")
        return "; ".join(parts)


def _runs(count: int, which: str = "") -> str:
    return f"{count} {which}run{'' if count == 1 else 's'}"


def _is(counted: Mapping[str, str]) -> str:
    return "is" if len(counted) == 1 else "are"


def summary(reasons: Iterable[str]) -> str:
    """The reasons of several runs in one line, the most frequent first."""
    counts = Counter(part for reason in reasons for part in reason.split("; "))
    shown = [reason for reason, _ in counts.most_common(3)]
    more = len(counts) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def standing(tasks: Sequence[Task], reuse: Reuse) -> Standing:
    """Judge the earlier runs of these tasks; stale ones that are not kept are moved aside.

    Raises:
        ConfigError: ``reuse.rerun`` is not a row.
        DataError: the data cannot be read, so that nothing can be said about finished runs.
        FedimbError: a stale run is in use by another process.
    """
    asked = asked_for(tasks, reuse.rerun)
    done, unfinished = earlier(tasks)
    present, found = Present(), Standing(done, unfinished)
    configs = {task.key: from_json(task.config) for task in tasks}
    for key, path in [*((k, d.path) for k, d in done.items() if d.path is not None), *unfinished.items()]:
        if key in asked:
            why = ASKED
        elif key in unfinished and not (path / "rows.json").exists():  # killed before it computed anything
            continue
        else:
            why = _why(present, configs[key], path, reuse.keep_stale)
        if not why:
            _unmark(path)
        elif key in done and reuse.keep_stale and why != ASKED:
            _mark(path, why)
            found.kept[key] = why
        else:
            found.aside = set_aside(path, why).parent
            (found.again if key in done else found.afresh)[key] = why
            (done if key in done else unfinished).pop(key)
    left = [task for task in tasks if task.key not in done.keys() | unfinished.keys() | asked]
    done |= _elsewhere(left, {d.path for d in done.values()}, present)
    return found


def changed_meanwhile(tasks: Sequence[Task], done: Mapping[str, Done]) -> str:
    """Mark the runs that are stale by the time a study has ended: its other runs may have used other code or data.

    Returns:
        one line for people; empty if nothing changed while the study ran.
    """
    present, changed = Present(), dict[str, str]()
    for task in tasks:
        path = done[task.key].path
        if path is None or done[task.key].status == "failed" or (path.is_dir() and stale_mark(path)):
            continue
        try:
            why = "; ".join(present.differences(from_json(task.config), _identity(path)))
        except Damaged as damage:
            why = str(damage)
        except (ConfigError, DataError) as error:
            why = f"the data cannot be read any more: {error}"
        if why:
            _mark(path, why)
            changed[task.key] = why
    if not changed:
        return ""
    return (
        f"{_runs(len(changed))} of this study {_is(changed)} stale ({summary(changed.values())}, since the study was "
        "started), marked in every table; run the same command again to repeat "
        f"{'it' if len(changed) == 1 else 'them'}"
    )


def asked_for(tasks: Sequence[Task], row: str | None) -> set[str]:
    """Keys of the tasks that ``--rerun`` names.

    Raises:
        ConfigError: no task has that row.
    """
    if row is None:
        return set()
    named = {task.key for task in tasks if row in ("", *task.rows)}
    if not named:
        rows = list(dict.fromkeys(label for task in tasks for label in task.rows))
        raise ConfigError(
            f"--rerun {row}: no row '{row}'.{nearest(row, rows) or ' The rows are ' + ', '.join(rows) + '.'} "
            "To run all again, give --rerun last"
        )
    return named


def _why(present: Present, config: RunConfig, path: Path, keep: bool) -> str:
    try:
        return "; ".join(present.differences(config, _identity(path)))
    except Damaged as damage:
        return str(damage)
    except (ConfigError, DataError) as error:
        if keep:
            return f"the data cannot be read now: {error}"
        raise DataError(
            f"{error}; so it cannot be said whether {path} still stands: give the data, or use --keep-stale"
        ) from error


def _identity(path: Path) -> Identity | None:
    if path.is_dir():
        return read_identity(path)
    try:
        return of_json(json.loads(path.read_text()).get("identity"))
    except (OSError, ValueError):
        return None


def _elsewhere(tasks: Sequence[Task], taken: set[Path | None], present: Present) -> dict[str, Done]:
    """Finished runs on equal data that had another name or place: by key."""
    wanted = {task.key: from_json(task.config) for task in tasks if task.kind == "run"}
    candidates: dict[str, list[tuple[Path, Identity]]] = {}
    for parent in sorted({folder_of(config) for config in wanted.values()}):
        for path in sorted(file.parent for file in parent.glob(f"*/{FILE}")):
            if follows_arrivals(path):
                continue
            with contextlib.suppress(Damaged):
                found = read_identity(path) if path not in taken and (path / "result.json").exists() else None
                if found is not None:
                    candidates.setdefault(found.problem, []).append((path, found))
    done: dict[str, Done] = {}
    for key, config in wanted.items():
        for path, found in candidates.get(problem_sha(config), ()):
            try:
                now = present.identity(config, found)
            except (ConfigError, DataError):  # its own run says what is wrong
                break
            if not differences(replace(found, config=now.config), now):
                with contextlib.suppress(Damaged):
                    done[key] = Done(path.absolute(), *judged(path))
                    break
    return done


def set_aside(path: Path, why: str) -> Path:
    """Move a run folder, or the file of a computed row, to the folder `ASIDE` of its study.

    Returns:
        where it is now.

    Raises:
        FedimbError: the run is in use by another process.
    """
    study = path.parent.parent if path.parent.name == REFERENCES else path.parent
    aside = study / ASIDE
    aside.mkdir(exist_ok=True)
    folder = RunFolder(path) if path.is_dir() else None
    if folder is not None:
        folder.lock()
    try:
        if folder is not None:
            _mark(path, why)
            try:
                mark_stale(path, why)
            except FedimbError as error:  # MLflow is a copy
                log.warning("%s", error)
        names = (path.name if number == 1 else f"{path.name}-{number}" for number in itertools.count(1))
        return path.rename(next(aside / name for name in names if not (aside / name).exists()))
    finally:
        if folder is not None:
            folder.unlock()


def _mark(path: Path, why: str) -> None:
    if path.is_dir():
        write_atomic(path / MARK, (json.dumps({"why": why}) + "\n").encode())
    else:
        write_atomic(path, (json.dumps(json.loads(path.read_text()) | {"stale": why}) + "\n").encode())


def _unmark(path: Path) -> None:
    if path.is_dir():
        (path / MARK).unlink(missing_ok=True)
    elif "stale" in (found := json.loads(path.read_text())):
        del found["stale"]
        write_atomic(path, (json.dumps(found) + "\n").encode())


def stale_mark(path: Path) -> str:
    """Why a run that was kept is stale; empty for one that is not."""
    try:
        return str(json.loads((path / MARK).read_text())["why"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError):
        return "its mark cannot be read"
