"""Find and delete what a node built from records that were withdrawn.

Files and folders are found by the names of runs: ``<run>`` or ``<run>.*``. Batches of the outbox are found by the run
in their about.json or state.json; a batch that names no run of this node counts as built from the records. Files are
deleted, not overwritten: old disk blocks and backups are the site's responsibility.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data.pins import Pin

BUILT = ("state", "worklists", "outbox", "cache")
"""Folders of a node with the results of runs: client state and local models, worklists, samples, caches."""


def dependents(home: NodeHome, name: str, kept: str, affected: Sequence[Pin], others: Sequence[Pin]) -> list[str]:
    """What to delete: paths relative to the node's folder, with a trailing ``/`` for folders.

    Args:
        home: the node's folder.
        name: the data set. All its cached stores are deleted except the one of version ``kept``.
        kept: the version to keep.
        affected: runs that used the records.
        others: the other runs of the node.
    """
    versions = {path.name for path in home.file("data", "sets", name).iterdir() if path.is_dir()}
    found = [
        path for path in _entries(home.file("cache", "stores")) if path.name[:16] in versions and path.name != kept
    ]
    if affected:  # by hash, not by run: delete all of it, since it can be rebuilt
        found += _entries(home.file("cache", "made"))
    runs = _names(affected)
    for place in BUILT:
        found += _named_after(home.file(place), runs)
    found += [home.file("outbox", batch) for batch in _batches(home, runs, _names(others))]
    return [f"{path.relative_to(home.root)}{'/' * path.is_dir()}" for path in sorted(set(found))]


def purge(home: NodeHome, names: Sequence[str]) -> None:
    """Delete what `dependents` found.

    A batch of the outbox is recalled: its samples are deleted, its decisions stay.
    """
    for name in names:
        path = home.file(name)
        if path.parent == home.file("outbox") and (path / "state.json").is_file():
            from fedimb.generation.outbox.box import BATCH, Outbox

            Outbox(path.parent).recall(path.name, "records it was made from were withdrawn")
            (path / BATCH).unlink(missing_ok=True)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _names(runs: Sequence[Pin]) -> set[str]:
    return {name for one in runs for name in (one.run, *one.names)}


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _named_after(folder: Path, runs: Collection[str]) -> Iterator[Path]:
    """The topmost files and folders below ``folder`` that are named after one of the runs."""
    for path in _entries(folder):
        if path.name in runs or any(path.name.startswith(f"{run}.") for run in runs):
            yield path
        else:
            yield from _named_after(path, runs)


def _batches(home: NodeHome, runs: set[str], others: set[str]) -> Iterator[str]:
    """Batches of the outbox that still have samples and name an affected run, or no run of this node."""
    root = home.file("outbox")
    if not any(root.glob("*/state.json")):
        return
    from fedimb.generation.outbox.box import BATCH, Outbox

    box = Outbox(root)
    for batch in box.ids():
        named = set(_texts(box.about(batch).get("about"))) | {Path(user).name for user in box.users(batch)}
        if (root / batch / BATCH).exists() and (named & runs or not named & others):
            yield batch


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
