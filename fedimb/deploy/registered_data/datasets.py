"""Registered data sets: what a site offers to studies, found by tag, as fixed versions of one list of records.

Apart from the cache, records are never copied into the node's folder. See
`fedimb.deploy.registered_data.data_version` for what is kept and `fedimb.deploy.registered_data.commitment` for what a
version proves.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from fedimb.annotation.private import write_private
from fedimb.data.findings.look import look_at
from fedimb.data.findings.stage import settle
from fedimb.deploy.home import NodeHome
from fedimb.deploy.registered_data import commitment, data_facts, merkle
from fedimb.deploy.registered_data.commitment import Commitment
from fedimb.deploy.registered_data.data_settings import accepted_findings, source_settings
from fedimb.deploy.registered_data.data_version import DataVersion, watched_paths, write_files
from fedimb.deploy.registered_data.source_records import Reading, read_source
from fedimb.deploy.registered_data.withdrawn import read_withdrawn, withdrawn_mask
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.plain import Settings

__all__ = ["DataVersion", "data_sets", "find_data_set", "make_version", "open_data_set", "register_data"]

_NAME = re.compile(r"\w[\w.-]{0,63}")


def register_data(
    home: NodeHome,
    path: str,
    name: str,
    tags: Sequence[str],
    source: str | None = None,
    patient_column: str | None = None,
    settings: Sequence[str] = (),
    like: str | None = None,
    classes: Sequence[str] = (),
    recordable: Sequence[str] = (),
) -> DataVersion:
    """Read a data set completely and make it the current version of ``name``.

    The same records give the same version.

    Args:
        path: file or folder.
        name: the data set's name: letters of any alphabet, digits, ``_ . -``.
        tags: tags by which plans select it; at least one.
        source, patient_column, settings, like, classes: see `source_settings`.
        recordable: classes without any rows that the site would record if it saw a case.

    Raises:
        ConfigError: a name or setting is not valid.
        DataError: the data cannot be read (names every bad row), the labels cannot express a class, or something looks
            wrong that neither ``data.accept`` among the settings nor that of ``like`` names.
    """
    _check_words(name, tags)
    accept, settings = accepted_findings(settings, like)
    config = source_settings(home.site, path, source, settings, like, patient_column, classes)
    reading = read_source(config)
    known = reading.data.class_names
    for one in recordable:
        if one not in known:
            raise ConfigError(f"--can-record {one}: no such class.{nearest(one, known)}")
    counted = data_facts.counts(reading)["class_counts"]
    declared = {*recordable, *_declared(config, known)}
    if silent := [c for c in known if counted[c] == 0 and c not in declared]:
        raise DataError(
            f"'{name}' has no rows of class '{silent[0]}': if the site records this class and has no case yet, give "
            f"--can-record '{silent[0]}'; if its labels cannot express the class, such rows are labelled as another "
            f"class, and the site cannot take part in a study of these classes"
        )
    settle(look_at(reading.data)[0], accept)
    able = [c for c in known if counted[c] or c in declared]
    return make_version(home, name, tags, config, reading, able, "registered", accept)


def make_version(
    home: NodeHome,
    name: str,
    tags: Sequence[str],
    source: Settings,
    reading: Reading,
    recordable: Sequence[str],
    reason: str,
    accept: Sequence[str] = (),
) -> DataVersion:
    """Write a version of the data that were read, without withdrawn records, and make it the current one.

    Args:
        accept: findings that the site accepts (`fedimb.data.findings`).

    Raises:
        DataError: no record is left.
    """
    secret, entries = commitment.site_secret(home), read_withdrawn(home, name)
    marks = commitment.mark_records(secret, reading)
    kept = ~withdrawn_mask(reading, marks, entries, secret)
    if not kept.any():
        raise DataError(
            f"every record of '{name}' is withdrawn, so there is no version to use: give its tags to another data set"
        )
    if not kept.all():
        reading, marks = reading.subset(kept), np.array(marks)[kept].tolist()
    schema = data_facts.schema(reading, source["name"])
    root = merkle.root(Commitment.over(secret, name, marks).leaves(reading)).hex()
    version = _sha({"name": name, "schema": schema, "rows": len(marks), "root": root})
    folder = home.folder("data", "sets", name, version[:16])
    before = _current(home, name)
    about = {
        "format": 1,
        "name": name,
        "tags": sorted({*tags}),
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "previous": before if before != version[:16] else None,
        "withdrawn": len(entries),
        "source": source,
        "accept": list(accept),
        "facts": {
            "merkle_root": root,
            "schema": schema,
            **data_facts.counts(reading),
            "left_out": int((~kept).sum()),
            "recordable": list(recordable),
            "quality": data_facts.quality(reading),
        },
    }
    lines = [json.dumps([row.place, mark], ensure_ascii=False) for row, mark in zip(reading.rows, marks, strict=True)]
    write_private(folder / "records.jsonl", ("\n".join(lines) + "\n").encode(errors="surrogateescape"))
    write_files(folder, watched_paths(reading, source))
    write_private(folder / "version.json", json.dumps(about, ensure_ascii=False, indent=1).encode())
    write_private(folder.parent / "current", version[:16].encode())  # last: until then the previous version is in use
    return DataVersion.load(home, folder)


def find_data_set(home: NodeHome, tags: Sequence[str]) -> DataVersion:
    """The current version of the one data set that has all ``tags``.

    Raises:
        ConfigError: no data set has them, or several have.
    """
    registered = data_sets(home)
    found = [one for one in registered if set(tags) <= set(one.tags)]
    if len(found) == 1:
        return found[0]
    asked = ", ".join(tags)
    if found:
        raise ConfigError(
            f"{len(found)} data sets have the tags {asked}: {_listed(found)}; change the tags of one of them"
        )
    held = _listed(registered) or "none is registered"
    raise ConfigError(
        f"{home.site}: no data set has the tags {asked} ({held}): register one with fedimb node data add PATH "
        "--tags ..."
    )


def data_sets(home: NodeHome) -> list[DataVersion]:
    """The current version of every data set, by name."""
    root = home.file("data", "sets")
    return [open_data_set(home, path.parent.name) for path in sorted(root.glob("*/current"))]


def open_data_set(home: NodeHome, name: str, version: str | None = None) -> DataVersion:
    """Open a data set's current version, or the one whose hash starts with ``version`` (at least 12 digits).

    Raises:
        ConfigError: there is no such data set or version.
        DataError: it is damaged.
    """
    root = home.file("data", "sets")
    current = _current(home, name) if _NAME.fullmatch(name) else None
    if current is None:
        known = [path.parent.name for path in root.glob("*/current")]
        raise ConfigError(f"no data set '{name}' is registered.{nearest(name, known)}")
    if version is None:
        return DataVersion.load(home, root / name / current)
    found = [
        path.parent for path in sorted((root / name).glob("*/version.json")) if path.parent.name[:12] == version[:12]
    ]
    if len(found) != 1 or len(version) < 12:
        raise ConfigError(f"data set '{name}' has no version {version[:12]}; see fedimb node data list")
    return DataVersion.load(home, found[0])


def _current(home: NodeHome, name: str) -> str | None:
    try:
        return home.file("data", "sets", name, "current").read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def _check_words(name: str, tags: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"data set name '{name}': use letters, digits, '_', '.' and '-', at most 64, and start with a letter or "
            "digit"
        )
    if not tags or not all(_NAME.fullmatch(tag) for tag in tags):
        raise ConfigError(
            f"tags {', '.join(tags) or '(none)'}: give at least one tag of letters, digits, '_', '.' and '-'"
        )


def _declared(source: dict[str, object], classes: Sequence[str]) -> list[str]:
    """The classes that a table's ``label_values`` declares recordable; the source refuses incomplete ones."""
    return list(classes) if source.get("label_values") else []


def _listed(versions: Sequence[DataVersion]) -> str:
    return ", ".join(f"'{one.name}' with {', '.join(one.tags)}" for one in versions)


def _sha(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
