"""The strength of post-hoc logit adjustment from held-out rows: ``calibration.la_post.tau`` as a rule.

- ``temperature``: the clients' training rows are cut into five folds inside each client, by class
  (`fedimb.data.held_out`); for each fold the run's training is repeated on the others, with the run's settings, and
  every client adds up the log loss of its rows of the fold at 37 temperatures. The server learns the sum over clients,
  37 numbers a fold. tau is the temperature of the least sum over the folds (`fedimb.evaluation.temperature`).
- ``temperature_one_fold``: one training, on four fifths; from 500 held-out rows on, and within [.5, 8].
- ``oracle_pool``: in active learning, whose labelled rows are no random sample, the same folds' models scored on the
  unlabelled rows. Their labels are known in a simulation only.

In active learning the rows are those labelled at the end, and what is repeated is the training of the last cycle
(continuing strategies: all rounds, from fresh weights). It is done before that cycle's rounds, elsewhere before the
first round, so that every summarised round is scored with tau. The run's own training is the same with and without.
"""

import json
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict
from numpy.typing import NDArray

from fedimb import registry
from fedimb.config.parts import build_model
from fedimb.config.validate import calibrations_of
from fedimb.contracts import platform as names
from fedimb.data.federation import Federation
from fedimb.data.groups import SplitConfig, row_groups
from fedimb.data.held_out import FOLDS, fold_federation, folds_of
from fedimb.data.views import to_tensors
from fedimb.errors import ConfigError, RunFailed
from fedimb.evaluation.temperature import (
    MOST_LOSS,
    ONE_FOLD,
    TEMPERATURES,
    UNIT,
    at_edge,
    best_temperature,
    loss_sums,
    mean_losses,
)
from fedimb.models.base import load_into
from fedimb.plain import JsonObject
from fedimb.records import Arrays, arrays_of
from fedimb.schema import RunConfig, calibration_part
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.masked_sum import masked_sum
from fedimb.serverapp.steps import Query, ServerWork, Step
from fedimb.training.forward import forward_batched

log = logging.getLogger("fedimb")

LEAST_ROWS = 100
"""Rows held out in all five folds together."""
LEAST_ROWS_OF_ONE = 500
"""Rows of a single fold: with 61 the temperature fell to .3."""
ORACLE = "oracle_pool"
ARTIFACT = "temperature.json"
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FoldRun:
    """A training without one fold.

    Attributes:
        sums: log loss of the fold's rows at each temperature, over all clients, [37] int64 in units of 2^-20 nats.
        rows: how many these are.
        weights: the trained model's parameters and buffers.
        cost: ``up_bytes``, ``down_bytes``, ``steps``, ``server_steps``, ``client_seconds``.
    """

    sums: Rows
    rows: int
    weights: Arrays
    cost: Mapping[str, float]


RunFold = Callable[[int, RunConfig, Federation], FoldRun]
"""Trains without a fold, given its number, the configuration (`fold_config`) and its federation."""
States = Callable[[], Mapping[int, RecordDict]]
"""Reads what each client has kept, by client id."""


def tau_rules(config: RunConfig) -> dict[str, str]:
    """The calibrations of a run whose tau is found on held-out rows: name -> rule."""
    entries = zip(config.calibration, calibrations_of(config), strict=True)
    return {name: str(entry.flags["tau_rule"]) for name, entry in entries if entry.flags.get("tau_rule")}


def folds_needed(config: RunConfig) -> int:
    """Trainings that a run repeats for its temperatures: 0, 1 or 5."""
    return max((int(entry.flags["folds"]) for entry in calibrations_of(config) if "folds" in entry.flags), default=0)


def at_tau_one(config: RunConfig) -> RunConfig:
    """The configuration with tau 1 in place of rules: nothing is trained without a fold."""
    rules, kept = tau_rules(config), dict[str, dict[str, Any]]()
    for name, args in config.calibration.items():
        own = (args or {}) | ({"tau": 1.0} if name in rules else {})
        alike = [k for k in kept if calibration_part(k) == calibration_part(name) and kept[k] == own]
        if not alike:
            kept[name] = own
    return config.model_copy(update={"calibration": kept})


def check_taus(config: RunConfig, federation: Federation, deployed: bool = False) -> None:
    """Refuse rules that cannot work with these data or this method, before anything runs.

    Args:
        deployed: the clients are hospitals, whose rows are not here.

    Raises:
        ConfigError: the reason, and what to set instead.
    """
    check_losses(config, federation)
    rules = tau_rules(config)
    if not rules:
        return
    where = f"calibration.{next(iter(rules))}.tau={next(iter(rules.values()))}"
    if deployed or federation.client_names:
        raise ConfigError(
            f"{where}: a study plan holds one training, and folds are more of them on rows of the sites; run it with "
            "evaluation.temperature=true, whose result says the temperature, and give tau as a number"
        )
    if config.attack["name"] != "none":
        raise ConfigError(f"{where}: the attackers' losses cannot be left out of the masked sum; give tau as a number")
    for strategy, args in config.strategy.items():
        if (args or {}).get("epsilon") is not None:
            raise ConfigError(
                f"{where} trains on most rows again for every fold, which strategy.{strategy}.epsilon does not cover; "
                "give tau as a number"
            )
    labelling = _labelling(config)
    if ORACLE in rules.values() and labelling is None:
        raise ConfigError(
            f"calibration.{next(k for k, rule in rules.items() if rule == ORACLE)}.tau={ORACLE} is about rows without "
            "a label, and this run labels none: use tau=temperature"
        )
    rows = int(federation.train_sizes.sum())
    if labelling is not None:
        rows = _check_labelling(config, federation, *labelling, where)
    _check_rows(config, rows, where)


def _check_rows(config: RunConfig, rows: int, where: str) -> None:
    """Refuse too few rows that can be held out."""
    rules = set(tau_rules(config).values())
    if "temperature_one_fold" in rules and rows // FOLDS < LEAST_ROWS_OF_ONE:
        raise ConfigError(
            f"{where}: one fold of {rows} rows holds out {rows // FOLDS}, too few for a temperature "
            f"({LEAST_ROWS_OF_ONE} are needed); use tau=temperature (five folds), or give a number"
        )
    if rows < LEAST_ROWS:
        raise ConfigError(
            f"{where}: {rows} rows with labels are too few for a temperature ({LEAST_ROWS} are needed); give tau as a "
            "number, such as 1"
        )


def _labelling(config: RunConfig) -> tuple[str, Mapping[str, Any]] | None:
    """The strategy that asks for labels, and its settings."""
    for name, args in config.strategy.items():
        if registry.flags("strategy", name).get("asks_for_labels"):
            return name, args or {}
    return None


def labelled_rows(config: RunConfig) -> int | None:
    """The most rows that one client has labelled in the end; None if all its labels are known."""
    if (found := _labelling(config)) is None:
        return None
    _, args = found
    budget = int(args.get("budget", 0))
    return int(args.get("first") or budget) + (int(args.get("cycles", 1)) - 1) * budget


def _check_labelling(config: RunConfig, federation: Federation, name: str, args: Mapping[str, Any], where: str) -> int:
    """The rows that will be labelled."""
    if (oracle := (args.get("oracle") or {}).get("name", "simulated")) != "simulated":
        raise ConfigError(
            f"{where}: what people label (strategy.{name}.oracle={{name: {oracle}}}) is not among the rows that folds "
            "are cut from; give tau as a number"
        )
    cycles = int(args.get("cycles", 1))
    last = config.rounds // cycles
    if config.evaluation.last_k * config.evaluation.every > last:
        raise ConfigError(
            f"{where} is known from the last of {cycles} cycles on, whose {last} rounds are fewer than the "
            f"{config.evaluation.last_k} scores of evaluation.last_k; set evaluation.last_k="
            f"{max(1, last // config.evaluation.every)}"
        )
    return int(np.minimum(federation.train_sizes, labelled_rows(config) or 0).sum())


def check_losses(config: RunConfig, federation: Federation) -> None:
    """Refuse ``evaluation.temperature`` where nothing is held out. Raises ConfigError."""
    if not config.evaluation.temperature:
        return
    where = "evaluation.temperature=true"
    if federation.task != "multiclass":
        raise ConfigError(f"{where} needs one class per row, but these rows have several labels; leave it out")
    if not config.data.get("validation") and not federation.validation.sizes.any():
        raise ConfigError(f"{where} scores the clients' validation rows: set e.g. data.validation=0.2")
    if config.clients.count < 2:
        raise ConfigError(f"{where} hides nothing with one client: its sum is that client's; leave it out")
    if config.attack["name"] != "none":
        raise ConfigError(f"{where}: the attackers' losses cannot be left out of the masked sum; leave it out")


def gather_losses(context: RunContext, federation: Federation) -> Generator[Step, Any, tuple[Rows, int]]:
    """Sub-program: the final model's log loss on the clients' validation rows, [37] int64, and how many rows.

    Raises:
        RunFailed: the opened sum is not possible.
    """
    clients = [int(client) for client in np.flatnonzero(federation.train_sizes)]

    def figures(content: RecordDict) -> np.ndarray:
        return arrays_of(content, names.LOSSES)["sums"]

    query = Query(names.MASKED_LOSSES, RecordDict(), model=context.final)
    total, summed = yield from masked_sum(query, "validation", clients, federation, context, figures)
    rows = int(federation.validation.sizes[summed].sum())
    if total.min() < 0 or total.max() > rows * MOST_LOSS / UNIT:
        raise RunFailed(
            f"{names.MASKED_LOSSES}: the opened sum is out of range for {rows} rows and is discarded: at least one "
            "client sent something else than its losses. Masks hide who; resume to ask all again"
        )
    return total, rows


def curve_of(sums: Rows, rows: int, folds: int, within: Sequence[float] = (0.0, float("inf"))) -> JsonObject:
    """What is kept of one rule: the temperature, the curve, and what it is from."""
    tau = best_temperature(sums, within)
    return {
        "tau": tau,
        "at_edge": at_edge(tau, within),
        "rows": rows,
        "folds": folds,
        "temperatures": list(TEMPERATURES),
        "log_loss": mean_losses(sums, rows),
    }


def find_taus(context: RunContext) -> Generator[Step, Any, JsonObject]:
    """Sub-program: train without each fold and find the temperatures; returns what the result keeps.

    ``rules``: `curve_of` by rule; ``never_held_out``: names of classes with too few rows; ``cost``: of the trainings.
    """
    made = yield ServerWork("temperature", lambda: context.search_taus())
    found: JsonObject = json.loads(str(made.config_records["temperature"]["facts"]))
    context.artifact(ARTIFACT, (json.dumps(found, indent=1) + "\n").encode())
    return found


def search_taus(
    config: RunConfig, federation: Federation, context: RunContext, run_fold: RunFold, states: States
) -> RecordDict:
    """Train without each fold; returns what `find_taus` reads, which is kept with the step.

    Args:
        states: what each client of a simulation has kept.

    Raises:
        RunFailed: too few rows, or a training that failed.
    """
    rules = sorted(set(tau_rules(config).values()))
    labelled = _labelled_rows(config, federation, states)
    rows = list(federation.train) if labelled is None else labelled
    _check_found(config, rows)
    groups = row_groups(federation.store, SplitConfig.parse(config.data.get("split")).group)
    folds = folds_of(federation, rows, config.seed, FOLDS, None if groups is None else groups.of_row)
    count, own = folds_needed(config), fold_config(config)
    shown = context.working("trainings without a fold", count)
    shown(0)
    runs, pool = [], np.zeros(len(TEMPERATURES), np.int64)
    for fold in range(count):
        runs.append(run_fold(fold, own, fold_federation(federation, folds, fold)))
        if ORACLE in rules:
            pool += _pool_losses(config, federation, rows, runs[-1].weights)
        shown(1)
    found = {}
    for rule in rules:
        if rule == "temperature_one_fold":
            found[rule] = curve_of(runs[0].sums, runs[0].rows, 1, ONE_FOLD)
        elif rule == ORACLE:
            unlabelled = count * sum(map(len, _pool(federation, rows)))
            found[rule] = curve_of(pool, unlabelled, count)
        else:
            found[rule] = curve_of(np.sum([one.sums for one in runs], axis=0), sum(one.rows for one in runs), count)
        if found[rule]["at_edge"]:
            log.warning("tau=%s: the least log loss is at the end of the range, T = %g", rule, found[rule]["tau"])
    never = [federation.class_names[c] for c in folds.never]
    if never:
        log.warning("no row of %s is ever held out: too few are left to train on", ", ".join(never))
    cost = {key: float(sum(one.cost[key] for one in runs)) for key in runs[0].cost}
    facts = {"rules": found, "never_held_out": never, "cost": cost}
    return RecordDict({"temperature": ConfigRecord({"facts": json.dumps(facts)})})


def _check_found(config: RunConfig, rows: Sequence[Rows]) -> None:
    """Refuse too few rows, where how many there are was not known before the run."""
    try:
        _check_rows(config, sum(map(len, rows)), f"calibration.{next(iter(tau_rules(config)))}.tau")
    except ConfigError as error:
        raise RunFailed(str(error)) from None


def fold_config(config: RunConfig) -> RunConfig:
    """The configuration of a training without a fold: the run's own, scored at the end alone.

    A strategy that labels in cycles is left out, since its rows are given; what remains are the rounds of one cycle,
    or all of them where training continues from cycle to cycle.
    """
    rounds, strategy = config.rounds, {}
    for name, args in config.strategy.items():
        if not registry.flags("strategy", name).get("cycles"):
            strategy[name] = args
        elif (args or {}).get("restart", True):
            rounds //= int((args or {}).get("cycles", 1))
    engine = config.engine
    if engine["name"] not in ("inline", "ray"):  # a server app serves one run
        engine = {"name": "inline", "trainer": engine.get("trainer", "auto"), "device": engine.get("device", "cpu")}
    scored = {"every": rounds, "last_k": 1, "bootstrap": 0, "secure": True, "temperature": True}
    return config.model_copy(
        update={
            "rounds": rounds,
            "strategy": strategy or {"plain": {}},
            "calibration": {"none": {}},
            "data": {key: value for key, value in config.data.items() if key != "subgroups"},
            "engine": engine,
            "tracking": {"name": "none"},
            "evaluation": config.evaluation.model_copy(update=scored),
            "name": None,
        }
    )


def _labelled_rows(config: RunConfig, federation: Federation, read_states: States) -> list[Rows] | None:
    """The rows that each client has had labelled; None if all labels are known.

    Raises:
        RunFailed: a label that is not the source's.
    """
    if _labelling(config) is None:
        return None
    states, y = read_states(), np.asarray(federation.store.y)
    found = []
    for client in range(federation.n_clients):
        kept = arrays_of(states[client], "labels") if "labels" in states.get(client, {}) else None
        rows = np.zeros(0, np.int64) if kept is None else kept["rows"].astype(np.int64)
        if kept is not None and not np.array_equal(y[rows], kept["labels"]):
            raise RunFailed("labels that differ from the source's cannot be cut into folds; give tau as a number")
        found.append(rows)
    return found


def _pool(federation: Federation, labelled: Sequence[Rows]) -> list[Rows]:
    return [np.setdiff1d(own, rows) for own, rows in zip(federation.train, labelled, strict=True)]


def _pool_losses(config: RunConfig, federation: Federation, labelled: Sequence[Rows], weights: Arrays) -> Rows:
    """Log loss of a model on all unlabelled rows at each temperature, [37] int64: with labels that nobody has."""
    model = build_model(config, federation.n_classes, federation.input_shape)
    load_into(model, {name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    total = np.zeros(len(TEMPERATURES), np.int64)
    for rows in _pool(federation, labelled):
        if len(rows):
            x, y = to_tensors(federation.store, rows, federation.scaling)
            total += loss_sums(forward_batched(model, x)[1], y)
    return total
