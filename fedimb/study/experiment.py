"""Reads an MLflow experiment as a study, for runs whose folders are elsewhere. Scores are those that were logged.

A row's scores are means over its last ``evaluation.last_k`` scored rounds, as in a run folder, and so is what is done
where rows have unequally many; what only a run folder has (probabilities, costs of mistakes) is absent.
"""

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedimb import process_env
from fedimb.contracts.class_incremental import OF_PHASE
from fedimb.contracts.platform import EARLIER_PARTS, PART, REPLACED, SERVER_STEPS
from fedimb.errors import ConfigError, nearest
from fedimb.evaluation.confusion import hits_and_support
from fedimb.evaluation.ratios import ratio
from fedimb.rundir.result import of_last_part
from fedimb.study.folders import disambiguate, keep, labels_of
from fedimb.study.results import COLUMNS, Result, Setting, Status, StudyResults, as_shown

if TYPE_CHECKING:
    from fedimb.tracking.store import Client, Run


def of_experiment(name: str, uri: str | None = None, output_dir: str = "runs") -> StudyResults:
    """All runs of an MLflow experiment, grouped as run folders are (`fedimb.study.folders`).

    Args:
        name: name of the experiment.
        uri: address of the store; None: the output folder's store.

    Raises:
        ConfigError: no such experiment, or no fedimb run in it.
        FedimbError: the store cannot be used.
    """
    from fedimb.tracking.store import connect, one_line_errors, resolve_uri

    address = resolve_uri(uri, output_dir)
    with one_line_errors(address):
        return _read_experiment(connect(address, True), name)


def _read_experiment(client: "Client", name: str) -> StudyResults:
    from fedimb.tracking.mlflow import STALE_TAG

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        known = [found.name for found in client.search_experiments()]
        raise ConfigError(f"MLflow has no experiment '{name}'.{nearest(name, known)}")
    runs, token = [], None
    while True:
        page = client.search_runs([experiment.experiment_id], "tags.`fedimb.strategy` != ''", page_token=token)
        runs += [run for run in page if STALE_TAG not in run.data.tags]
        token = page.token
        if not token:
            break
    if not runs:
        raise ConfigError(f"MLflow's experiment '{name}' has no fedimb runs")
    runs.sort(key=_order)
    found: dict[tuple[str, str, int], Result] = {}
    settings: dict[str, Setting] = {}
    params = [{k: v for k, v in run.data.params.items() if not k.startswith("resolved.")} for run in runs]
    for run, named in zip(runs, disambiguate(params), strict=True):
        result, classes = _result(client, run)
        label = named.label(result.label, run.data.tags.get("fedimb.calibration", "none"))
        keep(found, replace(result, setting=named.setting, label=label))
        if classes or named.setting not in settings:
            none = np.zeros(len(classes), np.int64)
            settings[named.setting] = Setting(named.setting, named.words, classes, (), none)
    results = tuple(found.values())
    about = f"MLflow's experiment '{name}'."
    return as_shown(StudyResults(name, about, settings, *labels_of(results), results))


def _order(run: "Run") -> tuple[int, bool, str]:
    """Sort by start time; the rows of one run start together, and uncalibrated ones come first."""
    tags = run.data.tags
    return run.info.start_time, tags.get("fedimb.calibration", "none") != "none", tags["fedimb.strategy"]


def _result(client: "Client", run: "Run") -> tuple[Result, tuple[str, ...]]:
    tags, params = run.data.tags, run.data.params
    label, seed = tags["fedimb.strategy"], int(tags.get("fedimb.seed", 0))
    last_k = int(params.get("evaluation.last_k", 1))
    status: Status = "finished" if run.info.status == "FINISHED" else "failed"
    lines: dict[int, dict[str, float]] = {}
    names = [m for m in run.data.metrics if m.startswith("test/") and m.removeprefix("test/") in COLUMNS]
    for metric in [*names, *(m for m in (PART, *EARLIER_PARTS, REPLACED) if m in run.data.metrics)]:
        for point in client.get_metric_history(run.info.run_id, metric):
            lines.setdefault(int(point.step), {})[metric] = float(point.value)
    last = of_last_part(lines[step] for step in sorted(lines))[-last_k:]
    rounds = {name.removeprefix("test/"): [line.get(name, math.nan) for line in last] for name in names if last}
    scores = {name: float(np.mean(values)) for name, values in rounds.items()}
    curve = [
        (step, {name.removeprefix("test/"): lines[step][name] for name in names if name in lines[step]})
        for step in sorted(lines)
        if not lines[step].keys().isdisjoint(names)
    ]
    for total, metric in (("up_bytes", "comm/up_bytes"), ("down_bytes", "comm/down_bytes"),
                          ("client_seconds", "time/client_s"), ("steps", "train/steps")):  # fmt: skip
        if metric in run.data.metrics:
            scores[total] = math.fsum(p.value for p in client.get_metric_history(run.info.run_id, metric))
    if SERVER_STEPS in run.data.metrics:
        scores["server_steps"] = float(run.data.metrics[SERVER_STEPS])  # the last value is the sum of all
    matrix, classes = _matrix(client, run.info.run_id)
    recall = [] if matrix is None else ratio(*hits_and_support(matrix)).tolist()
    if status == "finished" and not math.isfinite(scores.get("macro_recall", math.nan)):
        status = "diverged"
    result = Result(
        "default", label, seed, status, scores, matrix, recall, curve=curve,
        prior=tags.get("fedimb.prior", "none"), sha=tags.get("fedimb.config_sha", ""),
        identity=tags.get("fedimb.identity", ""),
        error="" if status == "finished" else f"MLflow says {run.info.status}",
        suspect=tags.get("fedimb.suspect", ""),
        final={name: values[-1] for name, values in rounds.items()}, averaged=len(last),
        phased=OF_PHASE in run.data.metrics,
    )  # fmt: skip
    return result, classes


def _matrix(client: "Client", run_id: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The confusion matrix logged with a run, and the classes' names."""
    if not any(item.path == "confusion.json" for item in client.list_artifacts(run_id)):
        return None, ()
    process_env.set_defaults(process_env.MLFLOW_DOWNLOADS)
    with tempfile.TemporaryDirectory() as folder:
        logged = json.loads(Path(client.download_artifacts(run_id, "confusion.json", folder)).read_text())
    return np.array(logged["matrix"], dtype=np.int64), tuple(logged["class_names"])
