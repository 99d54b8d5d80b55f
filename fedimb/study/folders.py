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
_LABELLED = ("strategy", "aggregator.name", "aggregation_weight", "loss.name", "sampler.name", "calibration", "name")
_IGNORED = ("seed", "study", "output_dir", "engine", "tracking", "checkpoint", "evaluation")
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
        problem = [f"{key}={config.get(key)}" for key in differing if key.startswith(_PROBLEM)]
        setting = " ".join(word.rpartition(".")[2] if word.count(".") == 1 else word for word in problem) or "default"
        words.setdefault(setting, problem)
        extra = " ".join(f"{k}={config.get(k)}" for k in differing if not k.startswith((*_PROBLEM, *_LABELLED)))
        for result in read_run(path, setting, Costs()):
            label = f"{result.label} {extra}".strip()
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
    keys = dict.fromkeys(key for config in flat for key in config if not key.startswith(_IGNORED))
    return [key for key in keys if len({config.get(key) for config in flat}) > 1]


def _named(result: Result, label: str) -> Result:
    from dataclasses import replace

    return replace(result, label=label)
