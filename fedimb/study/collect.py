"""Reads run folders into `Result`s: the only way from run folders to tables, statistics and reports."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fedimb.config.load import config_sha, from_json, row_label
from fedimb.config.parts import prior_label
from fedimb.contracts.class_incremental import OF_PHASE
from fedimb.data.federation import Federation
from fedimb.errors import ConfigError, RunDiverged
from fedimb.evaluation.costs import check_costs, named_costs, prior_accuracy, total_cost, weighted_accuracy
from fedimb.plain import JsonObject
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.identity import read_identity
from fedimb.rundir.result import CLASSES, RowResult, RunResult, of_last_part
from fedimb.rundir.seal import Damaged
from fedimb.rundir.stored import read_config, read_federation
from fedimb.schema import RunConfig
from fedimb.study.cells import Cell
from fedimb.study.design import Costs
from fedimb.study.results import Result, Setting, Status
from fedimb.study.reuse import stale_mark
from fedimb.study.work import Done, Task, judged

REPORTED = (
    "config.json",
    "rows.json",
    "partition.",
    "environment.json",
    "identity.json",
    "metrics.jsonl",
    "result.json",
    "artifacts/panels/",
)
"""What a report reads of a run folder: beginnings of names."""
CURVE = ("macro_recall", "minority_recall")


def read_run(
    path: Path, setting: str, costs: Costs, labels: Mapping[str, str] | None = None, reference: bool = False
) -> list[Result]:
    """Read the rows of a run folder.

    Args:
        path: the run folder.
        setting: name of the setting.
        costs: costs of mistakes.
        labels: row label by calibration; None: the run's own labels.
        reference: whether it is a study's reference row, which may predict one class: that is what it shows.

    Raises:
        FedimbError: not a run folder, or from an incompatible version.
        ConfigError: a cost matrix that does not fit.
    """
    results = _results(path, setting, costs, labels, reference)
    try:
        made = read_identity(path)
    except Damaged:  # said by the results of a run that has ended
        made = None
    stale = stale_mark(path)
    return [replace(result, identity=made.sha if made else "", stale=stale) for result in results]


def _results(path: Path, setting: str, costs: Costs, labels: Mapping[str, str] | None, reference: bool) -> list[Result]:
    folder = RunFolder.open(path)
    config = read_config(folder)
    names = labels or {name: row_label(config, name) for name in config.calibration}
    seed, sha = config.seed, config_sha(config)
    if not _has_ended(folder):
        state = folder.read_json("status.json", {})
        how: Status = "diverged" if state.get("kind") == RunDiverged.__name__ else "failed"
        reason = _line(str(state.get("reason") or f"status {state.get('status', 'unknown')}"))
        return [Result(setting, label, seed, how, folder=path, sha=sha, error=reason) for label in names.values()]
    try:
        folder.check_sealed(*REPORTED)
        run = RunResult.read(path)
    except Damaged as damage:  # the other runs of a study can still be read
        return [
            Result(setting, label, seed, "failed", folder=path, sha=sha, error=_line(str(damage)))
            for label in names.values()
        ]
    status, error = judged(path)
    curves = _curves(folder)
    phased = any(OF_PHASE in line["metrics"] for line in folder.metrics())
    rows = dict(zip(config.calibration, run.rows, strict=True))
    return [
        Result(
            setting,
            label,
            seed,
            status,
            error=error,
            folder=path,
            sha=sha,
            row=rows[name].label,
            scores=_scores(run, rows[name], costs) | _over_labels(folder, rows[name].label),
            final=rows[name].final,
            averaged=averaged_rounds(folder.metrics(), rows[name].label, config.evaluation.last_k),
            phased=phased,
            matrix=rows[name].tested_matrix,
            recall=[r[0] for r in rows[name].recall],
            auroc=rows[name].auroc,
            auprc=rows[name].auprc,
            curve=curves.get(rows[name].label, ()),
            suspect="; ".join(w for k, w in rows[name].suspect.items() if not (reference and k == CLASSES)),
            refused=config.run.on_suspect == "fail",
            tau=rows[name].tau,
            tau_rule=rows[name].tau_rule,
            prior="none" if run.prior_counts is None or not _reads_prior(config, name) else prior_label(config),
        )
        for name, label in names.items()
    ]


def averaged_rounds(lines: Iterable[JsonObject], row: str, k: int) -> int:
    """How many evaluated rounds a row's means are over (`fedimb.serverapp.finish.last_k_means`)."""
    return min(k, len(of_last_part(line["metrics"] for line in lines if line["row"] == row)))


def _has_ended(folder: RunFolder) -> bool:
    """Whether there is a result, or should be one."""
    if (folder.path / "result.json").exists():
        return True
    return (seal := folder.seal) is not None and seal.ended


def read_computed(path: Path, cell: Cell, costs: Costs) -> Result:
    """Read the file of a computed reference row."""
    found = json.loads(path.read_text())
    row = found["rows"][cell.label]
    scores = {k: _number(v) for k, v in row["scores"].items()}
    scores |= {"up_bytes": 0.0, "down_bytes": 0.0}
    scores |= {k: float(row[k]) for k in ("labels", "steps", "client_seconds") if k in row}
    matrix = None if row["matrix"] is None else np.array(row["matrix"], dtype=np.int64)
    if matrix is not None and matrix.ndim == 2:
        scores |= _costs(matrix, np.array(found["train_counts"]), found["minority"], costs)
    recall = [_number(r) for r in row["recall"]]
    result = Result(cell.setting, cell.label, cell.seed, scores=scores, matrix=matrix, recall=recall, sha=path.stem)
    return replace(result, identity=(found.get("identity") or {}).get("sha", ""), stale=found.get("stale", ""))


def read_cells(cells: Sequence[Cell], done: Mapping[str, Done], costs: Costs) -> list[Result]:
    """The result of every cell, in order; a missing one counts as failed, with the reason."""
    found: list[Result] = []
    for cell in cells:
        outcome = done.get(cell.task, Done(None, "failed", "not run"))
        if outcome.path is None or outcome.status == "failed":
            status = outcome.status if outcome.status != "finished" else "failed"
            found.append(Result(cell.setting, cell.label, cell.seed, status, error=_line(outcome.error)))
        elif cell.kind == "run":
            found += read_run(outcome.path, cell.setting, costs, {cell.calibration: cell.label}, cell.reference)
        else:
            found.append(read_computed(outcome.path, cell, costs))
    return found


def as_asked(results: Sequence[Result], tasks: Sequence[Task], done: Mapping[str, Done]) -> tuple[Result, ...]:
    """The same, where ``run.on_suspect`` is that of the present command and not that of a run that is reused."""
    asked = {done[task.key].path: from_json(task.config).run.on_suspect for task in tasks if task.kind == "run"}
    return tuple(
        replace(result, refused=asked[result.folder] == "fail") if result.folder in asked else result
        for result in results
    )


def setting_of(name: str, words: Sequence[str], results: Sequence[Result]) -> Setting:
    """The setting's common facts, from its first finished run that has the setting's clients."""
    folders = sorted((r for r in results if r.folder is not None and r.matrix is not None), key=lambda r: r.seed)
    best: Federation | None = None
    for result in folders:  # a pooled row has one client, others have the setting's clients
        assert result.folder is not None
        federation = read_federation(RunFolder.open(result.folder))
        if best is None or federation.n_clients > best.n_clients:
            best = federation
        if best.n_clients > 1:
            break
    if best is None:
        return Setting(name, tuple(words), (), (), np.zeros(0, np.int64))
    counts = None if best.virtual else best.counts
    return Setting(name, tuple(words), tuple(best.class_names), tuple(best.minority), best.class_totals, counts)


def _scores(run: RunResult, row: RowResult, costs: Costs) -> dict[str, float]:
    scores = dict(row.metrics)
    scores |= {k: v for k, v in row.probability.items() if k in ("ece", "classwise_ece", "auroc", "auprc")}
    more = _folds_cost(run, row)
    scores |= {
        "worst_client": row.worst_client,
        "best_client": row.best_client,
        "labels": run.labels,
        "steps": run.steps + more["steps"],
        "server_steps": run.server_steps + more.get("server_steps", 0.0),  # folds of earlier versions do not say theirs
        "client_seconds": run.client_seconds + more["client_seconds"],
        "up_bytes": run.up_bytes + more["up_bytes"],
        "down_bytes": run.down_bytes + more["down_bytes"],
    }
    if row.confusion.ndim == 2:
        scores |= _costs(row.confusion, run.train_counts, run.minority, costs)
    return scores


def _folds_cost(run: RunResult, row: RowResult) -> Mapping[str, float]:
    """What a row whose tau comes from folds costs beside its run: the trainings without a fold."""
    cost = run.temperature["cost"] if run.temperature is not None and row.tau_rule else None
    return cost or dict.fromkeys(("steps", "client_seconds", "up_bytes", "down_bytes"), 0.0)


def _costs(matrix: np.ndarray, train: np.ndarray, minority: Sequence[int], costs: Costs) -> dict[str, float]:
    """Scores of the final round that depend on class frequencies and on the cost of mistakes."""
    classes = len(matrix)
    if isinstance(costs.matrix, str):
        price = named_costs(costs.matrix, classes, minority)
    else:
        price = check_costs(costs.matrix, classes)
    served: Any = {"training": train, "balanced": np.ones(classes)}.get(str(costs.deployment), costs.deployment)
    if len(served) != classes:
        raise ConfigError(f"costs.deployment holds {len(served)} shares for {classes} classes; give one each")
    known = bool(np.any(train))  # in a deployment the sites count their rows
    found = {
        "prior_accuracy": prior_accuracy(matrix, train) if known else math.nan,
        "weighted_accuracy": weighted_accuracy(matrix, price),
        "total_cost": total_cost(matrix, price),
    }
    if not np.any(served):
        return found | {"weighted_accuracy_deployed": math.nan, "total_cost_deployed": math.nan}
    return found | {
        "weighted_accuracy_deployed": weighted_accuracy(matrix, price, served),
        "total_cost_deployed": total_cost(matrix, price, served),
    }


def _curves(folder: RunFolder) -> dict[str, list[tuple[int, dict[str, float]]]]:
    curves: dict[str, list[tuple[int, dict[str, float]]]] = {}
    for line in folder.metrics():
        metrics = line["metrics"]
        if "test/macro_recall" in metrics:
            point = {name: _number(metrics.get(f"test/{name}")) for name in CURVE}
            curves.setdefault(line["row"], []).append((int(line["step"]), point))
    return curves


def _over_labels(folder: RunFolder, row: str) -> dict[str, float]:
    """AULC: area under a score over the labels used (trapezoid rule), divided by their range; {} without cycles.

    A cycle's score is the score of its last scored round.
    """
    ends: dict[float, dict[str, Any]] = {}
    for line in folder.metrics():
        if line["row"] == row and "data/cycle" in line["metrics"] and "test/macro_recall" in line["metrics"]:
            ends[float(line["metrics"]["data/cycle"])] = line["metrics"]
    points = [ends[cycle] for cycle in sorted(ends)]
    labels = np.array([float(point["data/labelled"]) for point in points])
    if len(points) < 2 or labels[-1] <= labels[0]:
        return {}
    span = labels[-1] - labels[0]
    return {
        f"aulc_{name}": float(np.trapezoid([_number(point[f"test/{name}"]) for point in points], labels) / span)
        for name in CURVE
    }


def _reads_prior(config: RunConfig, calibration: str) -> bool:
    from fedimb.serverapp.assemble import needs_counts

    return needs_counts(config.model_copy(update={"calibration": {calibration: {}}}))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
