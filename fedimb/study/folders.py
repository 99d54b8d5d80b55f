"""Run folders that no study file names, as a study: grouped by what differs between their configurations.

What makes the problem (data, partition, clients, model, rounds, local steps) becomes the setting; parts are in the row
label already; every other difference, a learning rate say, is added to the label. Source: ours.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedimb.config.load import flatten, from_json
from fedimb.errors import FedimbError
from fedimb.study.collect import read_run, setting_of
from fedimb.study.compare import RECORD, read_compared
from fedimb.study.plan import Costs
from fedimb.study.results import Result, StudyResults

_PROBLEM = ("data.", "partition.", "clients.", "model.", "rounds", "local.epochs", "local.batch_size", "prior.")
_LABELLED = ("aggregator.name", "aggregation_weight", "loss.name", "sampler.name", "name")
_IGNORED = ("seed", "study", "output_dir", "engine", "tracking", "checkpoint", "evaluation.bootstrap")
_CONTROLS = ("la_post", "uniform+la_post", "fedavg")


def collect(folder: Path, command: str = "") -> StudyResults:
    """All runs of a study's folder: by its record where it has one, else by their configurations.

    Raises:
        FedimbError: no run folder in it.
        ConfigError: see `read_compared`.
    """
    if (folder / RECORD).exists():
        return read_compared(folder)
    return of_runs(sorted(path.parent for path in folder.glob("*/config.json")), folder.absolute().name, command)


def of_runs(paths: Sequence[Path], name: str, command: str = "") -> StudyResults:
    """Run folders as a study. Of two runs of one configuration the first that finished counts.

    Raises:
        FedimbError: none given.
    """
    if not paths:
        raise FedimbError(f"there are no runs of '{name}'; `fedimb run study={name}` makes one")
    flat = {path: flatten(from_json((path / "config.json").read_text())) for path in paths}
    differing = _differing(list(flat.values()))
    found: dict[tuple[str, str, int], Result] = {}
    words: dict[str, list[str]] = {}
    for path, config in flat.items():
        problem = [f"{key}={config[key]}" for key in differing if key in config and key.startswith(_PROBLEM)]
        setting = " ".join(word.rpartition(".")[2] if word.count(".") == 1 else word for word in problem) or "default"
        words.setdefault(setting, problem)
        extra = [k for k in differing if k in config and not k.startswith(_PROBLEM) and k not in _LABELLED]
        rows = from_json((path / "config.json").read_text()).calibration
        for calibration, result in zip(rows, read_run(path, setting, Costs()), strict=True):
            others = tuple(f"calibration.{name}." for name in rows if name != calibration)
            own = [f"{k}={config[k]}" for k in extra if not k.startswith(others)]
            label = " ".join([result.label, *own])
            key = (setting, label, result.seed)
            if key not in found or (found[key].status == "failed" and result.status != "failed"):
                found[key] = _named(result, label)
    results = tuple(found.values())
    labels = tuple(dict.fromkeys(result.label for result in results))
    settings = {
        setting: setting_of(setting, own, [r for r in results if r.setting == setting])
        for setting, own in words.items()
    }
    control = next((label for label in _CONTROLS if label in labels), None) if len(labels) > 1 else None
    return StudyResults(name, "", settings, labels, control, results, command)


def _differing(flat: Sequence[dict[str, Any]]) -> list[str]:
    """Keys that tell configurations apart; an argument counts only among those that name the part it belongs to."""
    keys = dict.fromkeys(key for config in flat for key in config if not key.startswith(_IGNORED))
    found = []
    for key in keys:
        values: dict[Any, set[Any]] = {}
        for config in flat:
            values.setdefault(_owner(key, config), set()).add(config.get(key))
        if any(len(own) > 1 for owner, own in values.items() if owner is not None):
            found.append(key)
    return found


def _owner(key: str, config: dict[str, Any]) -> Any:
    """The part a key is an argument of, as this configuration has it: None where it has another; ``""`` of no part."""
    kind, _, rest = key.partition(".")
    if kind in ("strategy", "calibration"):
        prefix = f"{kind}.{rest.partition('.')[0]}"
        return prefix if any(k == prefix or k.startswith(f"{prefix}.") for k in config) else None
    parts = key.split(".")
    names = [f"{'.'.join(parts[:n])}.name" for n in range(len(parts) - 1, 0, -1)]
    return next((str(config[name]) for name in names if name in config and name != key), "")


def _named(result: Result, label: str) -> Result:
    from dataclasses import replace

    return replace(result, label=label)
