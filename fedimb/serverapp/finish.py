"""Writes the results of a finished run: result.json with summary metrics and cost, confusion matrices, the model."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fedimb.config.parts import prior_label
from fedimb.contracts.class_incremental import OF_PHASE
from fedimb.contracts.platform import SERVER_STEPS
from fedimb.data.federation import Federation
from fedimb.errors import FedimbError
from fedimb.evaluation.confusion import hits_and_support
from fedimb.evaluation.events import EventScores
from fedimb.evaluation.intervals import wilson
from fedimb.evaluation.metrics import scores
from fedimb.evaluation.phases import FORGETTING, forgetting, recall_after
from fedimb.evaluation.ratios import mean_defined
from fedimb.paces.base import SECOND
from fedimb.plain import JsonObject
from fedimb.rundir.folder import RunFolder
from fedimb.rundir.result import (
    EVENTS,
    SUBGROUPS,
    TAU_CURVE,
    WITHOUT_SITE,
    of_last_part,
    suspect_text,
    untrained_text,
)
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, numpy_rng
from fedimb.serverapp.evaluate import Evaluator
from fedimb.serverapp.events import events_artifact, events_of
from fedimb.serverapp.influence import capped_counts
from fedimb.serverapp.loop import Loop
from fedimb.serverapp.monitor import Monitor
from fedimb.serverapp.panels import phases_panel, tau_panel
from fedimb.serverapp.subgroups import subgroups_artifact
from fedimb.serverapp.temperature import curve_of

log = logging.getLogger("fedimb")

MOST_LEFT_OUT = 64
"""Clients up to which scores are also computed without each in turn."""


def _clients(evaluator: Evaluator, row: str, federation: Federation) -> dict[str, float]:
    """The client figures of a `RowResult`; of virtual clients none is defined."""
    if federation.virtual:
        return {"worst_client": math.nan, "mean_client": math.nan, "best_client": math.nan, "defined_clients": 0}
    expected = evaluator.client_accuracies(row)
    defined = expected[~np.isnan(expected)]
    return {
        "worst_client": float(defined.min()) if defined.size else math.nan,
        "mean_client": float(mean_defined(expected)),
        "best_client": float(defined.max()) if defined.size else math.nan,
        "defined_clients": int(defined.size),
    }


def _row(
    folder: RunFolder,
    config: RunConfig,
    federation: Federation,
    evaluator: Evaluator,
    monitor: Monitor,
    phases: JsonObject | None,
    row: str,
) -> JsonObject:
    """A row of result.json (`RowResult`): its scores with their intervals, and what the monitor says of them."""
    matrix = evaluator.matrices[row]
    mean, final = last_k_means(folder, row, config.evaluation.last_k)
    if phases is not None:
        mean[FORGETTING] = final[FORGETTING] = phases["mean_forgetting"]
    intervals: dict[str, list[float]] = {}
    if config.evaluation.bootstrap:
        rng = numpy_rng(config.seed, Stream.BOOTSTRAP)
        drawn = evaluator.intervals(row, config.evaluation.bootstrap, rng)
        intervals = {k: [float(v[0]), float(v[1])] for k, v in drawn.items()}
    hits, support = hits_and_support(matrix)
    low, high = wilson(hits / evaluator.copies, support / evaluator.copies)
    recall = [
        [float(h / s) if s else math.nan, float(a), float(b)]
        for h, s, a, b in zip(hits, support, low, high, strict=True)
    ]
    probability = evaluator.probability(row)
    suspect, alarms = monitor.suspicions(row), monitor.alarms(row)
    return {
        "label": row,
        "metrics": mean,
        "final": final,
        "confusion": matrix.tolist(),
        **({"copies": evaluator.copies} if evaluator.copies > 1 else {}),
        "intervals": intervals,
        "recall": recall,
        "probability": probability.means,
        "auroc": probability.auroc.tolist(),
        "auprc": probability.auprc.tolist(),
        **evaluator.tau_of(row),
        **_clients(evaluator, row, federation),
        **({"suspect": suspect} if suspect else {}),
        **({"alarms": alarms} if alarms else {}),
    }


def _row_artifacts(
    folder: RunFolder, federation: Federation, evaluator: Evaluator, rows: Sequence[str]
) -> dict[str, dict[str, EventScores]]:
    """Write every row's confusion matrix, and the scores of its test rows where they are kept; returns its events."""
    events: dict[str, dict[str, EventScores]] = {}
    for row in rows:
        if (scored := evaluator.row_scores(row)) is not None:
            scored.write(folder, row)
            if of_events := events_of(federation, scored):
                events[row] = of_events
        target = folder.path / "artifacts" / "rows" / row.replace("/", "_")
        target.mkdir(parents=True, exist_ok=True)
        matrix = evaluator.matrices[row].tolist()
        (target / "confusion.json").write_text(
            json.dumps({"class_names": list(federation.class_names), "matrix": matrix})
        )
    return events


def write_result(folder: RunFolder, config: RunConfig, federation: Federation, evaluator: Evaluator, loop: Loop) -> str:
    """Write result.json and the artifacts of a finished run; returns why it is suspect, or ``""``."""
    model = loop.model(loop.context.final)
    evaluator(model.parameters, model.buffers, loop.context.counts, None)
    untrained = evaluator.untrained()
    if untrained is not None:
        log.warning("%s", untrained_text(untrained))
    scored = [row for row in evaluator.labels if row in evaluator.matrices]
    monitor = Monitor(config.evaluation.last_k, folder.metrics(), evaluator.tested)
    by_phase = {row: _by_phase(folder, row, federation) for row in scored}
    phases = {row: one for row, one in by_phase.items() if one is not None}
    rows = [_row(folder, config, federation, evaluator, monitor, phases.get(row), row) for row in scored]
    events = _row_artifacts(folder, federation, evaluator, scored)
    traffic, left_out, attackers = loop.exchange.traffic, loop.exchange.left_out, loop.exchange.attackers
    if evaluator.subgroups:
        about = (config.evaluation.subgroup_floor, evaluator.without_subgroups, evaluator.hidden_of_sites)
        folder.artifact(SUBGROUPS, subgroups_artifact(*about, evaluator.subgroups))
    if events:
        folder.artifact(EVENTS, events_artifact(events))
    if without := scores_without(evaluator, left_out.name, config, federation.minority):
        folder.artifact(WITHOUT_SITE, (json.dumps(without, indent=1) + "\n").encode())
    folder.write_json(
        "result.json",
        {
            "rows": rows,
            "up_bytes": traffic.total_up,
            "down_bytes": traffic.total_down,
            "seconds": loop.progress.elapsed_s,
            "simulated_wait_s": loop.progress.virtual_s,
            "rounds": loop.progress.server_round,
            "failed_replies": loop.exchange.errors,
            **cost(folder, rows[0]["label"], federation),
            "train_counts": federation.class_totals.tolist(),
            "prior": {
                "counts": None if loop.context.counts is None else loop.context.counts.tolist(),
                "provenance": prior_label(config),
            },
            "class_names": list(federation.class_names),
            "minority": list(federation.minority),
            "task": federation.task,
            "seed": config.seed,
            "privacy": loop.context.ledger.account(loop.progress.privacy) if loop.context.ledger else None,
            **({"temperature": temperature} if (temperature := _temperature(folder, evaluator)) else {}),
            **({"phases": _phases(folder, federation, phases)} if phases else {}),
            **({"left_out": left_out.facts()} if left_out.replies else {}),
            **({"untrained": untrained} if untrained else {}),
            **({"attack": attackers.facts()} if attackers else {}),
            **({"virtual_s": loop.progress.virtual_ns / SECOND} if loop.pacing and loop.pacing.timed else {}),
        },
    )
    evaluator.save(folder.path / "artifacts", loop.context.counts)
    return suspect_text({row["label"]: row.get("suspect", {}) for row in rows})


def _by_phase(folder: RunFolder, row: str, federation: Federation) -> JsonObject | None:
    """Recall after each phase and what was forgotten, of one row; None if no method trained by phases."""
    lines = [line["metrics"] for line in folder.metrics() if line["row"] == row]
    table = recall_after(lines, OF_PHASE, len(federation.phases)) if federation.phases else None
    if table is None:
        return None
    lost = forgetting(table)
    return {"recall": table.tolist(), "forgetting": lost.tolist(), "mean_forgetting": float(mean_defined(lost))}


def _phases(folder: RunFolder, federation: Federation, by_row: Mapping[str, JsonObject]) -> JsonObject:
    """What the result says of the phases, and the panel of it for the report."""
    classes = [[federation.class_names[c] for c in own] for own in federation.phases]
    folder.artifact("panels/phases.json", phases_panel(classes, {row: one["recall"] for row, one in by_row.items()}))
    return {"classes": [list(own) for own in federation.phases], "rows": dict(by_row)}


def _temperature(folder: RunFolder, evaluator: Evaluator) -> JsonObject | None:
    """What the run found on held-out rows, and the curve of its scores over tau as an artifact; None without either."""
    if curve := evaluator.tau_curve():
        names = ("macro_recall", "minority_recall", "accuracy")
        lines = [",".join(("tau", *names))]
        lines += [",".join([f"{tau:g}", *(f"{own[name]:.6g}" for name in names)]) for tau, own in curve]
        folder.artifact(TAU_CURVE, ("\n".join(lines) + "\n").encode())
        by_rule = {rule: float(one["tau"]) for rule, one in (evaluator.temperature or {}).get("rules", {}).items()}
        folder.artifact("panels/tau_curve.json", tau_panel(curve, by_rule))
    if evaluator.held_out is None:
        return evaluator.temperature
    sums, rows = evaluator.held_out
    found = {"validation": curve_of(sums, rows, 0)} if rows else {}
    if evaluator.temperature is None:
        return {"rules": found, "never_held_out": [], "cost": {}}
    return evaluator.temperature | {"rules": evaluator.temperature["rules"] | found}


def scores_without(
    evaluator: Evaluator, name: Callable[[int], str], config: RunConfig, minority: Sequence[int]
) -> dict[str, dict[str, dict[str, float]]]:
    """Final scores without each client in turn, where clients score the model: a matrix that one of them made up shows.

    Returns:
        row label -> site (or client) -> ``macro_recall``, ``minority_recall`` (NaN: undefined) and its ``rows``; empty
        if matrices are masked, or there are fewer than two clients or more than `MOST_LEFT_OUT`.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    if evaluator.hidden_of_sites.all():
        return found
    for row, calibration in evaluator.labels.items():
        matrices = evaluator.of_clients(calibration)
        if not 2 <= len(matrices) <= MOST_LEFT_OUT:
            continue
        clients, stacked = list(matrices), np.stack(list(matrices.values()))
        for i, client in enumerate(clients):
            rest = capped_counts(np.delete(stacked, i, axis=0), config.clients.max_weight_share).sum(axis=0)
            own = scores(rest, minority)
            about = {key: float(own[key]) for key in ("macro_recall", "minority_recall")}
            found.setdefault(row, {})[name(client)] = about | {"rows": int(stacked[i].sum())}
    return found


def last_k_means(folder: RunFolder, row: str, k: int) -> tuple[dict[str, float], dict[str, float]]:
    """(mean of the last k evaluated rounds, final round) of a row's ``test/`` scores, per-class recall excluded.

    A score that is undefined (NaN) in any of the k rounds stays NaN: neither a silent zero nor a silent omission.
    Rounds of earlier parts of the training do not count (`of_last_part`).
    """
    scored = of_last_part(line["metrics"] for line in folder.metrics() if line["row"] == row)
    if not scored:
        raise FedimbError(f"{folder.path} has no evaluated round of '{row}'")
    keys = [key for key in scored[-1] if key.startswith("test/") and not key.startswith("test/recall/")]

    def value(line: JsonObject, key: str) -> float:
        return math.nan if line[key] is None else float(line[key])

    mean = {key[5:]: float(np.mean([value(line, key) for line in scored[-k:]])) for key in keys}
    final = {key[5:]: value(scored[-1], key) for key in keys}
    return mean, final


def cost(folder: RunFolder, row: str, federation: Federation) -> dict[str, float]:
    """The costs of a whole run (see `RunResult`). They are the same for all calibrations: ``row`` is any of them."""
    lines = [line["metrics"] for line in folder.metrics() if line["row"] == row]
    logged = [value for line in lines if (value := line.get("data/labelled")) is not None]
    return {
        "client_seconds": math.fsum(line.get("time/client_s") or 0.0 for line in lines),
        "steps": int(sum(line.get("train/steps") or 0 for line in lines)),
        "server_steps": int(max((line.get(SERVER_STEPS) or 0 for line in lines), default=0)),  # each is the sum so far
        "labels": int(logged[-1]) if logged else federation.labelled_rows,
    }


def keep_scores(folder: RunFolder, evaluator: Evaluator, loop: Loop) -> None:
    """Write the clients' matrices as the scores of the last round, the only evaluation of such a run."""
    if not evaluator.client_matrix:
        return
    model = loop.model(loop.context.final)
    scores = evaluator(model.parameters, model.buffers, loop.context.counts, None)
    about = {"step": loop.progress.server_round, "time": int(time.time() * 1000)}
    folder.append_metrics(
        [
            {"row": row, **about, "metrics": {k: v if np.isfinite(v) else None for k, v in found.items()}}
            for row, found in scores.items()
        ]
    )
