"""Registers a study before its runs: what is claimed, of what, and a hash of all of it, in a file to be committed.

A contrast that was chosen after looking at results is no test. ``<study>.registered.json`` beside the study's file
holds the primary score, the contrasts, rows, data sets, seeds, margins and why, the hash of every row's configuration
and of every data set's content. `judge` compares it with the study as it is: whatever differs makes the study
exploratory, and is named. Code is not part of it: each run's identity has that (`fedimb.rundir.identity`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fedimb.atomic import write_atomic
from fedimb.config.load import config_sha
from fedimb.errors import ConfigError
from fedimb.plain import JsonObject
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import Present
from fedimb.study.cells import first_config, row_configs
from fedimb.study.design import Study
from fedimb.study.results import Registered, Result

FORMAT = 1
NOTHING = "nothing was registered before the runs (fedimb study register)"
_TEXTS = ("about", "takeaway")
"""Parts of a study's file that change no number."""
_NAMED = 4


def registration_file(study: Path) -> Path:
    """Where the registration of a study's file is: ``study.yaml`` -> ``study.registered.json``."""
    return study.with_suffix(".registered.json")


def contents(study: Study, more: Sequence[str] = ()) -> JsonObject:
    """What is registered of a study, as JSON values. Opens the data of every setting.

    Args:
        study: the study.
        more: settings for every run, after the study's own.

    Raises:
        ConfigError: a row that cannot be run.
        DataError: data that cannot be read.
    """
    tree = study.model_dump(mode="json", exclude=set(_TEXTS))
    registered = tree.pop("registration") or {}
    bar = study.bar_settings
    present = Present()
    data: dict[str, str] = {}
    configurations: dict[str, str] = {}
    for setting in study.setting_words:
        data[setting] = present.identity(first_config(study, setting, (), more), None).data
        for label, config in row_configs(study, setting, {}, more).items():
            configurations[f"{label}, {setting}"] = config_sha(config.model_copy(update={"seed": 0}))
    return {
        "format": FORMAT,
        "primary": registered.get("primary"),
        "contrasts": registered.get("contrasts"),
        "margins": {"bar": None if bar is None else bar.margin, "equivalence": tree.pop("margin")},
        "margin_reason": registered.get("margin_reason"),
        "seeds": study.seed_list,
        "bar": None if bar is None else bar.model_dump(mode="json"),
        "reference_rows": study.reference_labels,
        **{key: value for key, value in tree.items() if key not in ("seeds", "bar", "references")},
        "configurations": configurations,
        "data": data,
    }


def sha_of(registered: Mapping[str, object]) -> str:
    """sha256 (hex) of what is registered."""
    return hashlib.sha256(json.dumps(registered, sort_keys=True).encode()).hexdigest()


def register(study: Study, path: Path) -> tuple[Path, Registered]:
    """Write the registration of the study in ``path``; the same study registered again changes nothing.

    Returns:
        the file, and what it says.

    Raises:
        ConfigError: the study names no contrasts, or the file holds the registration of another version of it.
    """
    if study.registration is None:
        raise ConfigError(
            f"{path} says nothing to register; add e.g. registration: {{primary: macro_recall, contrasts: "
            "[[my_row, bar]], margin_reason: why no smaller difference matters}"
        )
    now, file = contents(study), registration_file(path)
    if file.exists():
        before = _read(file)
        if changed := differences(before["registered"], now):
            raise ConfigError(
                f"{file} is the registration of an earlier version ({'; '.join(changed)}). Results of runs that were "
                "made meanwhile stay exploratory; to register the study as it is now, delete the file"
            )
        return file, Registered((), str(before["sha256"]), str(before["time"]))
    time = datetime.now(UTC).isoformat(timespec="seconds")
    found = {"study": study.name, "time": time, "fedimb": version("fedimb"), "sha256": sha_of(now), "registered": now}
    write_atomic(file, (json.dumps(found, indent=1) + "\n").encode())
    return file, Registered((), str(found["sha256"]), time)


def judge(study: Study, path: Path, more: Sequence[str]) -> Registered:
    """Whether the study in ``path`` is the one that was registered; if not, why not.

    Raises:
        ConfigError, DataError: see `contents`.
    """
    file = registration_file(path)
    if not file.exists():
        return Registered((NOTHING,))
    try:
        before = _read(file)
    except ConfigError as error:
        return Registered((str(error),))
    changed = differences(before["registered"], contents(study, more))
    reasons = [f"changed since it was registered: {'; '.join(changed)}"] if changed else []
    return Registered(tuple(reasons), str(before["sha256"]), str(before["time"]))


def with_earlier_runs(registered: Registered, results: Sequence[Result]) -> Registered:
    """The same, exploratory if runs had ended before it was registered."""
    if not registered.time:
        return registered
    since = datetime.fromisoformat(registered.time).timestamp()
    folders = {result.folder for result in results if result.folder is not None}
    earlier = [f for f in folders if RunFolder(f).read_json("status.json", {}).get("time", since) < since]
    if not earlier:
        return registered
    counted = "1 run" if len(earlier) == 1 else f"{len(earlier)} runs"
    reasons = (*registered.reasons, f"{counted} had ended before it was registered")
    return Registered(reasons, registered.sha, registered.time)


def _read(file: Path) -> JsonObject:
    try:
        found: JsonObject = json.loads(file.read_text(encoding="utf-8"))
        intact = found["sha256"] == sha_of(found["registered"])
        datetime.fromisoformat(found["time"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read ({type(error).__name__}: {error}); restore it") from None
    if not intact:
        raise ConfigError(f"{file} was edited: its hash is not that of what it says; restore it")
    return found


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """What differs between two registrations, a few words each.

    >>> differences({"seeds": [0], "rows": {"a": 1}}, {"seeds": [0, 1], "rows": {"a": 1, "b": 2}})
    ['seeds ([0] -> [0, 1])', 'rows (b added)']
    """
    found = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            found.append(f"{key} ({_short(old)} -> {_short(new)})")
            continue
        parts = [f"{name} added" for name in new if name not in old]
        parts += [f"{name} removed" for name in old if name not in new]
        parts += [f"{name} changed" for name in old if name in new and old[name] != new[name]]
        more = f", and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
        found.append(f"{key} ({', '.join(parts[:_NAMED])}{more})")
    return found


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
