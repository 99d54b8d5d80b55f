"""Reads run folders without a study file as a study: grouped by the differences between their configurations.

Differences that define the problem (data, partition, clients and their times, model, rounds, local steps) become the
setting; parts are in the row label already; every other difference, such as a learning rate, networks of the clients'
own, or what the prior is made of, is added to the label. Where the server gets class counts from is the problem; that a
row uses its clients' own counts, or none, is the row's choice, so that it stands beside those of gathered counts. What
a row does not read because of another choice (`fedimb.config.effects`) is no difference from rows that read it.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedimb.config.effects import unread_keys
from fedimb.config.load import flatten
from fedimb.errors import ConfigError, FedimbError
from fedimb.plain import Settings
from fedimb.rundir.arrival_journal import RECORDED, arrivals_differ
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import differences, read_identity
from fedimb.rundir.seal import Damaged
from fedimb.rundir.stored import read_config
from fedimb.schema import RunConfig
from fedimb.study.collect import read_run, setting_of
from fedimb.study.compare import RECORD, read_compared
from fedimb.study.design import Costs
from fedimb.study.results import Result, StudyResults, as_shown

_CLOCK = tuple(f"pace.{key}" for key in ("step_s", "sigma", "slow", "correlate", "rho", "jitter", "mbit_s"))
_PROBLEM = (
    *("data.", "partition.", "clients.", "model.", "rounds", "local.epochs", "local.batch_size", "prior."),
    *_CLOCK,
)
_METHOD = ("clients.private", "clients.models", "prior.weighting")  # of what begins like the problem
_PROVENANCE = "prior.provenance"
_NOT_GATHERED = ("local", "none")
"""Provenances by which the server learns no counts: that a row does without is its method, not its problem."""
_LABELLED = (
    *("aggregator.name", "aggregation_weight", "loss.name", "sampler.name", "resampler.name", "name"),
    *("pace.name", "pace.correction"),
)
_IGNORED = (
    *("seed", "study", "output_dir", "engine", "tracking", "checkpoint", "run.", "evaluation.bootstrap"),
    "explanation",  # it says why and changes no score
)
UNREADABLE = "runs not shown, whose configuration cannot be read"
_CONTROLS = ("la_post", "uniform+la_post", "fedavg")
log = logging.getLogger("fedimb")


def collect(folder: Path, command: str = "") -> StudyResults:
    """All runs in a study's folder: by its record if it has one, else by their configurations.

    Raises:
        FedimbError: no run folder in it.
        ConfigError: see `read_compared`.
    """
    if (folder / RECORD).exists():
        return read_compared(folder)
    return of_runs(sorted(path.parent for path in folder.glob("*/config.json")), folder.absolute().name, command)


def of_runs(paths: Sequence[Path], name: str, command: str = "") -> StudyResults:
    """Run folders as a study. If a configuration was run twice, the first run that finished counts.

    A run that repeats recorded arrivals is no run of its configuration, and is shown only where there are no others.
    A folder whose configuration cannot be read, such as one that is refused since, is left out; a fact and a warning
    name it.

    Raises:
        FedimbError: none given.
        ConfigError, Damaged: no configuration of them can be read: why that of the first cannot.
    """
    if not paths:
        raise FedimbError(f"there are no runs of '{name}'; `fedimb run study={name}` creates one")
    repeats = [path for path in paths if (path / RECORDED).exists()]
    if repeats and len(repeats) < len(paths):
        log.warning("not shown: %s, which repeats recorded arrivals", ", ".join(map(str, repeats)))
        paths = [path for path in paths if path not in repeats]
    read, unread = _configs(paths)
    paths, configs = list(read), list(read.values())
    flat = [flatten(config) for config in configs]
    found: dict[tuple[str, str, int], Result] = {}
    words: dict[str, tuple[str, ...]] = {}
    for path, config, named in zip(paths, configs, disambiguate(flat), strict=True):
        words.setdefault(named.setting, named.words)
        for calibration, result in zip(config.calibration, read_run(path, named.setting, Costs()), strict=True):
            keep(found, replace(result, label=named.label(result.label, calibration)))
    results = tuple(found.values())
    settings = {
        setting: setting_of(setting, own, [r for r in results if r.setting == setting])
        for setting, own in words.items()
    }
    facts = {UNREADABLE: "; ".join(unread)} if unread else {}
    return as_shown(StudyResults(name, "", settings, *labels_of(results), results, command, facts))


def _configs(paths: Sequence[Path]) -> tuple[dict[Path, RunConfig], list[str]]:
    """The configurations that can be read, and of every other folder its path and why."""
    found: dict[Path, RunConfig] = {}
    refused: dict[Path, FedimbError] = {}
    for path in paths:
        try:
            found[path] = read_config(RunFolder.open(path))
        except (ConfigError, Damaged) as error:
            refused[path] = error
    if not found:
        raise next(iter(refused.values()))
    unread = [f"{path} ({error})" for path, error in refused.items()]
    for one in unread:
        log.warning("not shown: %s", one)
    return found, unread


def keep(found: dict[tuple[str, str, int], Result], result: Result) -> None:
    """Add a result; if a configuration was run twice, the first run that did not fail counts.

    Unless the two were made of other code or data: then the later one counts, and a warning says so.
    """
    key = (result.setting, result.label, result.seed)
    if (other := found.get(key)) is None or (other.status == "failed" and result.status != "failed"):
        found[key] = result
    elif result.status != "failed" and (changed := _changed(other, result)):
        old, new = sorted((other, result), key=_ended)
        found[key] = new
        log.warning(
            "%s and %s are runs of one configuration, between which %s: the later one, %s, is shown; delete the other "
            "with fedimb runs rm",
            *(old.folder, new.folder, "; ".join(changed), new.folder),
        )


def _changed(one: Result, other: Result) -> list[str]:
    """What changed between two runs of one configuration."""
    if one.folder is None or other.folder is None or one.sha != other.sha:
        return []
    if arrivals_differ(one.folder, other.folder):
        return ["replies arrived in another order"]
    made = [read_identity(result.folder) for result in (one, other) if result.folder is not None]
    return differences(made[0], made[1]) if made[0] is not None and made[1] is not None else []


def _ended(result: Result) -> float:
    assert result.folder is not None
    return float(RunFolder(result.folder).read_json("status.json", {}).get("time", 0.0))


def labels_of(results: Sequence[Result]) -> tuple[tuple[str, ...], str | None]:
    """Row labels in order, and the control that others are tested against: a free correction, or FedAvg."""
    labels = tuple(dict.fromkeys(result.label for result in results))
    return labels, next((label for label in _CONTROLS if label in labels), None) if len(labels) > 1 else None


@dataclass(frozen=True)
class Named:
    """The name of one configuration among others.

    Attributes:
        setting: name of its setting.
        words: the setting as key=value.
        extra: further differences, added to row labels.
    """

    setting: str
    words: tuple[str, ...]
    extra: tuple[str, ...]

    def label(self, row: str, calibration: str) -> str:
        """A row's label with the further differences, except arguments of other calibrations."""
        own, said = f"calibration.{calibration}.", row.split(" ")
        extra = [w for w in self.extra if w not in said]  # a run of several taus says so in its rows
        return " ".join([row, *(w for w in extra if not w.startswith("calibration.") or w.startswith(own))])


def disambiguate(flat: Sequence[Mapping[str, object]]) -> list[Named]:
    """Name each of the flat configurations (`fedimb.config.load.flatten`, or MLflow's parameters)."""
    unread = _unread(flat)
    differing = _differing(flat, unread)
    read = {key: {c.get(key) for c, own in zip(flat, unread, strict=True) if key not in own} for key in differing}
    asked = [config for config, own in zip(flat, unread, strict=True) if _PROVENANCE not in own]
    used = {str(config[_PROVENANCE]) for config in asked if _PROVENANCE in config}
    gathered = sorted(used - set(_NOT_GATHERED))
    if len(gathered) > 1 and len(gathered) < len(used):
        log.warning(
            "rows with prior.provenance=%s stand in a setting without those of %s, which are settings of their own; to "
            "compare them, report the runs of one of these at a time",
            *(" or ".join(sorted(used & set(_NOT_GATHERED))), " and ".join(gathered)),
        )
    named = []
    for config, own in zip(flat, unread, strict=True):
        owned = [key for key in differing if key in config and _owner(key, config) is not None]
        owned = [key for key in owned if key not in own or config[key] in read[key]]  # of equal numbers in that setting
        present = [key for key in owned if not _in_label(key, config)]
        own_choice = str(config.get(_PROVENANCE)) in _NOT_GATHERED
        if len(gathered) == 1 and not own_choice:
            present = [key for key in present if key != _PROVENANCE]  # the one source of all rows that have one
        method = (*_METHOD, _PROVENANCE) if own_choice else _METHOD
        problem = [key for key in present if key.startswith(_PROBLEM) and not key.startswith(method)]
        named.append(
            Named(
                " ".join(f"{_short(key)}={config[key]}" for key in problem) or "default",
                tuple(f"{key}={config[key]}" for key in problem),
                tuple(f"{key}={config[key]}" for key in present if key not in problem),
            )
        )
    return named


def _unread(flat: Sequence[Mapping[str, object]]) -> list[frozenset[str]]:
    """Of each configuration the keys of the problem that it does not read though another one does.

    That the server gathers no counts is a choice of the row, and said in its label, whether they are read or not.
    """
    keys = dict.fromkeys(key for config in flat for key in config if key.startswith(_PROBLEM))
    several = [key for key in keys if len({config.get(key) for config in flat}) > 1]
    found = [unread_keys(several, _nested(config)) for config in flat] if several else [frozenset()] * len(flat)
    nobodys = frozenset(several).intersection(*found)
    own_choice = [str(config.get(_PROVENANCE)) in _NOT_GATHERED for config in flat]
    return [own - nobodys - ({_PROVENANCE} if choice else set()) for own, choice in zip(found, own_choice, strict=True)]


def _nested(flat: Mapping[str, object]) -> Settings:
    """The tree of a flat configuration; of MLflow's parameters, which are texts, with the values they stand for."""
    tree: Settings = {}
    for key, value in flat.items():
        *above, last = key.split(".")
        node: object = tree
        for step in above:
            node = node.setdefault(step, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[last] = _value(value) if isinstance(value, str) else value
    return tree


def _value(text: str) -> object:
    try:
        return json.loads({"True": "true", "False": "false"}.get(text, text))
    except ValueError:  # a name or another text
        return text


def _differing(flat: Sequence[Mapping[str, object]], unread: Sequence[frozenset[str]]) -> list[str]:
    """Keys that distinguish configurations; an argument counts only among those with its part that read it."""
    keys = dict.fromkeys(key for config in flat for key in config if not key.startswith(_IGNORED))
    found = []
    for key in keys:
        values: dict[Any, set[Any]] = {}
        for config, own in zip(flat, unread, strict=True):
            if key not in own:
                values.setdefault(_owner(key, config), set()).add(config.get(key))
        if any(len(own) > 1 for owner, own in values.items() if owner is not None):
            found.append(key)
    return found


def _in_label(key: str, config: Mapping[str, object]) -> bool:
    """Whether a value needs no word: the row label has it (`fedimb.config.load.row_label`), or it is the default.

    A name that was given in place of the label has no value.
    """
    value = str(config[key])
    if key in _LABELLED or (key, value) in (("clients.models", "null"), ("prior.weighting", "data")):
        return True
    if key == "clients.private" and value == "[]":
        return True
    if str(config.get("name", "null")) != "null":
        return False
    if key == "clients.private":
        return "*" not in value and "?" not in value  # which labels leave out
    return key == "clients.models.average" or (key, value) == ("prior.weighting", "arrived")


def _owner(key: str, config: Mapping[str, object]) -> object:
    """The part that a key is an argument of, in this configuration: None if it has another part; ``""`` for no part."""
    kind, _, rest = key.partition(".")
    if key.startswith(_CLOCK):  # of every pace with a clock alike
        return "" if str(config.get("pace.clock")).lower() == "true" else None
    if key.startswith("clients.models."):
        return None if "clients.models" in config else ""
    if kind in ("strategy", "calibration"):
        prefix = f"{kind}.{rest.partition('.')[0]}"
        return prefix if any(k == prefix or k.startswith(f"{prefix}.") for k in config) else None
    parts = key.split(".")
    names = [f"{'.'.join(parts[:n])}.name" for n in range(len(parts) - 1, 0, -1)]
    return next((str(config[name]) for name in names if name in config and name != key), "")


def _short(key: str) -> str:
    """``partition.alpha`` -> ``alpha``, like a study's grid; ``model.name`` -> ``model``."""
    if key.endswith(".name"):
        return key.removesuffix(".name")
    return key.rpartition(".")[2] if key.count(".") == 1 else key
