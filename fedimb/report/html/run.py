"""One run shown as a study: a setting, a row per calibration, one seed."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedimb.data.federation import Federation
from fedimb.errors import FedimbError
from fedimb.evaluation.confusion import hits_and_support
from fedimb.evaluation.ratios import ratio
from fedimb.run.folder import RunFolder
from fedimb.run.result import RowResult, RunResult
from fedimb.study.results import COLUMNS, Result, Setting, StudyResults

_PREFIX = "test/"


def study_of_run(path: str | Path) -> StudyResults:
    """A finished run's folder as a study; the first of several rows is the control.

    Raises:
        FedimbError: not a run folder, or not finished; says how to go on.
    """
    done = RunResult.read(path)
    folder = RunFolder.open(done.folder)
    config = folder.read_json("config.json")
    tags = {row["label"]: row.get("tags", {}) for row in folder.read_json("rows.json", [])}
    lines = folder.metrics()
    federation = Federation.load(done.folder)
    setting = Setting(
        "default", _words(config), done.class_names, done.minority, done.train_counts, federation.counts
    )
    results = tuple(_result(row, done, lines, tags.get(row.label, {})) for row in done.rows)
    return StudyResults(
        name=done.folder.name,
        about="One run" + (", scored in several ways." if len(results) > 1 else "."),
        settings={setting.name: setting},
        labels=tuple(r.label for r in results),
        control=results[0].label if len(results) > 1 else None,
        results=results,
        command=command(config),
        facts=_facts(folder, federation.sha),
    )


def command(config: Mapping[str, Any]) -> str:
    """The words that give this configuration again, checked by composing them; or where to find it.

    Args:
        config: a resolved configuration, as in ``config.json``.
    """
    from fedimb.config.compose import compose
    from fedimb.config.validate import validate

    groups = [f"{group}={_name(config[group])}" for group in _GROUPS if group in config]
    try:
        words = [*groups, *_different(compose(groups), config)]
        same = validate(compose(words)).model_dump(mode="json") == json.loads(json.dumps(config))
    except FedimbError:  # a data set or part of the user's own, in a folder that is not known here
        same = False
    if not same:
        return "fedimb.run with the configuration in config.json of the run folder"
    return "fedimb run " + " ".join(f"'{w}'" if set(w) & set(" [](){}*?$&|;<>\"") else w for w in words)


_GROUPS = ("data", "partition", "model", "strategy", "aggregator", "loss", "sampler", "calibration", "engine", "tracking")


def _name(part: Any) -> str:
    """How a group's choice is written: ``mlp``, or ``[none,la_post]`` where several are chosen."""
    if "source" in part:
        part = part["source"]
    if "name" in part:
        return str(part["name"])
    return next(iter(part)) if len(part) == 1 else f"[{','.join(part)}]"


def _different(default: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    words = []
    for key, value in wanted.items():
        before = default.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            words += _different(before, value, f"{prefix}{key}.")
        elif value != before:
            shown = value if isinstance(value, str) else json.dumps(value)
            words.append(f"{prefix}{key}={shown}")
    return words


def _words(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes the problem: data, partition, clients, model and rounds."""
    words = [f"{group}={_name(config[group])}" for group in ("data", "partition", "model")]
    clients = config["clients"]
    words += [f"data.imbalance_factor={config['data']['imbalance_factor']}", f"rounds={config['rounds']}"]
    words += [f"clients.{key}={clients[key]}" for key in ("count", "participation")]
    alpha = config["partition"].get("alpha")
    return tuple(words if alpha is None else [*words, f"partition.alpha={alpha}"])


def _result(row: RowResult, done: RunResult, lines: list[dict[str, Any]], tags: Mapping[str, str]) -> Result:
    own = [line for line in lines if line["row"] == row.label]
    scores = {name: value for name, value in row.metrics.items() if name in COLUMNS}
    scores |= {"up_bytes": float(done.up_bytes), "down_bytes": float(done.down_bytes)}
    for name, key in (("client_seconds", "time/client_s"), ("steps", "train/steps")):
        if values := [_number(line["metrics"][key]) for line in own if key in line["metrics"]]:
            scores[name] = math.fsum(values)
    if labelled := [_number(line["metrics"]["data/labelled"]) for line in own if "data/labelled" in line["metrics"]]:
        scores["labels"] = labelled[-1]
    hits, support = hits_and_support(row.confusion)
    return Result(
        "default",
        row.label,
        done.seed,
        "finished" if math.isfinite(row.metrics.get("macro_recall", math.nan)) else "diverged",
        scores,
        row.confusion,
        tuple(ratio(hits, support).tolist()),
        curve=tuple(_curve(own)),
        prior=str(tags.get("fedimb.prior", "none")).rpartition("/")[2],
        folder=done.folder,
        sha=str(tags.get("fedimb.config_sha", "")),
    )


def _curve(lines: list[dict[str, Any]]) -> list[tuple[int, dict[str, float]]]:
    """(round, scores) of the rounds that were scored."""
    curve = []
    for line in lines:
        scores = {
            key.removeprefix(_PREFIX): _number(value)
            for key, value in line["metrics"].items()
            if key.startswith(_PREFIX) and key.removeprefix(_PREFIX) in COLUMNS
        }
        if scores:
            curve.append((int(line["step"]), scores))
    return curve


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _facts(folder: RunFolder, partition: str) -> dict[str, str]:
    environment = folder.read_json("environment.json", {})
    facts = {"run folder": folder.path.name, "partition": partition}
    if packages := environment.get("packages"):
        facts["versions"] = ", ".join(f"{name} {number}" for name, number in packages.items())
    machine = [environment.get("platform"), f"Python {environment['python']}" if "python" in environment else None]
    if shown := [str(part) for part in machine if part]:
        facts["machine"] = ", ".join(shown)
    return facts
