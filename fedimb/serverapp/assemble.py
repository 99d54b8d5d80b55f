"""Assemble a run: strategies around the aggregator, the steps that gather the prior, the loop. Nothing runs here."""

import json
import math
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from flwr.app import RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedimb import registry
from fedimb.aggregators.refunds import BIAS, HEAD
from fedimb.clientapp.context import Site
from fedimb.clientapp.state import StateStore
from fedimb.config.parts import (
    build_model,
    check_client_parts,
    contracts_of,
    learning_rate,
    phase,
    resamples,
    resolved_weight,
)
from fedimb.config.site_models import Layout, kind_configs, kinds_of, shared_of
from fedimb.config.validate import check_task
from fedimb.data.federation import Federation
from fedimb.data.subgroups import parse_subgroups
from fedimb.engine.admission import Admission, HeldRows
from fedimb.engine.grid import SimulationGrid
from fedimb.engine.record_checks import Sizes
from fedimb.errors import ConfigError, RunFailed
from fedimb.evaluation.probabilities import BINS
from fedimb.models.base import Classifier, buffers_of, head_arrays, load_into, parameters_of
from fedimb.models.probe import is_from_elsewhere, probe_model
from fedimb.privacy.ledger import Ledger
from fedimb.privacy.updates import check_model
from fedimb.rundir.arrival_journal import ArrivalJournal, read_arrivals
from fedimb.rundir.folder import RunFolder
from fedimb.schema import RunConfig, calibration_part
from fedimb.serverapp.aggregator import Aggregator, chain
from fedimb.serverapp.arrivals import Arrivals
from fedimb.serverapp.attackers import Attackers, attackers_in
from fedimb.serverapp.checkpoint import FolderCheckpointer
from fedimb.serverapp.class_prior import check_prior, gather_prior, prior_from_counts
from fedimb.serverapp.client_sampler import ClientSampler
from fedimb.serverapp.client_scores import check_scores, gather_scores
from fedimb.serverapp.context import RunContext
from fedimb.serverapp.ensemble_evaluator import EnsembleEvaluator
from fedimb.serverapp.evaluate import Evaluator
from fedimb.serverapp.exchange import Exchange
from fedimb.serverapp.explanations import check_explanations, gather_explanations
from fedimb.serverapp.left_out import LeftOut
from fedimb.serverapp.live import Live
from fedimb.serverapp.loop import Loop
from fedimb.serverapp.models_by_kind import Group, ModelsByKind
from fedimb.serverapp.pacing import pacing_of
from fedimb.serverapp.progress import ProgressBar
from fedimb.serverapp.recorded import RECORDED, RecordedChannel
from fedimb.serverapp.server import Server
from fedimb.serverapp.site_evaluator import site_models
from fedimb.serverapp.steps import Step
from fedimb.serverapp.subgroups import attributes_of
from fedimb.serverapp.temperature import RunFold, check_taus, find_taus, gather_losses, search_taus, tau_rules
from fedimb.tracking.mlflow import Tracker
from fedimb.training.schedules import schedule_factor


def build_aggregator(config: RunConfig, n_clients: int) -> Strategy:
    """Build the configured aggregator. ``n_clients``: number of clients with data."""
    own = {k: v for k, v in config.aggregator.items() if k not in ("name", "objectives")}
    given = {"n_clients": n_clients, "seed": config.seed}
    strategy: Strategy = registry.build("aggregator", config.aggregator["name"], given, **own)
    return strategy


def server_lr_of(config: RunConfig) -> tuple[str, Callable[[int], float]] | None:
    """The aggregator's attribute that is its learning rate and its factor by round; None if it stays as configured."""
    if config.server_schedule.constant:
        return None
    name = str(registry.flags("aggregator", config.aggregator["name"])["server_lr"])
    return name, lambda server_round: schedule_factor(config.server_schedule, *phase(config, server_round))


def learning_rates(config: RunConfig, server_round: int) -> dict[str, float]:
    """Metrics of a round: the learning rates that are scheduled."""
    found = {} if config.local.schedule.constant else {"train/lr": learning_rate(config, server_round)}
    if (server := server_lr_of(config)) is not None:
        found["train/server_lr"] = float(config.aggregator[server[0]]) * server[1](server_round)
    return found


def build_method(config: RunConfig, n_clients: int = 0) -> tuple[Strategy, bool]:
    """The configured methods around the aggregator, outermost first, and whether updates may be summed.

    ``n_clients``: number of clients with data; 0: all configured clients.
    """
    strategy = build_aggregator(config, n_clients or config.clients.count)
    linear = bool(registry.flags("aggregator", config.aggregator["name"]).get("linear", False))
    for method, args in reversed(config.strategy.items()):
        strategy = registry.build("strategy", method, {"inner": strategy}, **args)
        linear = linear and not registry.flags("strategy", method).get("needs_individual_updates", False)
    return strategy, linear


def ledger_of(config: RunConfig, n_clients: int) -> Ledger | None:
    """The ledger of the privacy spent; None if no noise is added."""
    return Ledger(config.privacy, n_clients, config.clients.participation) if config.privacy.noise > 0 else None


def needs_counts(config: RunConfig) -> bool:
    """Whether any part of this run uses class counts, at the clients or at the server."""
    calibrations = [registry.flags("calibration", calibration_part(name)) for name in config.calibration]
    return _clients_need_counts(config) or any(flags.get("needs_prior", False) for flags in calibrations)


def _clients_need_counts(config: RunConfig) -> bool:
    """Whether the loss or a method uses class counts at the clients (post-hoc calibration never does)."""
    parts = [("loss", config.loss["name"])] + [("strategy", name) for name in config.strategy]
    return any(registry.flags(kind, name).get("needs_prior", False) for kind, name in parts)


def check_parts(config: RunConfig, federation: Federation) -> None:
    """Refuse parts that cannot work with these data, before a run folder or engine is created.

    Raises:
        ConfigError: names the part, the reason, and what to set instead.
    """
    contracts_of(config)
    check_task(config, federation.task, federation.unknown_rule)
    check_scores(config, federation.task, federation.unknown_labels)
    check_taus(config, federation)
    check_explanations(config, federation, federation.store.columns)
    check_networks(config, federation)
    payload = payload_of(config, build_model(config, federation.n_classes, federation.input_shape))
    pacing_of(config, federation, ClientSampler(config.clients, config.seed, federation.train_sizes), payload)
    columns = federation.store.columns
    categories = None if columns is None else columns.one_hot
    check_client_parts(config, federation.class_totals, federation.input_shape, categories)
    attackers_in(config, federation)
    check_head(config, federation)
    rounds = config.rounds
    methods: list[Any] = list(chain(build_method(config, federation.n_clients)[0])[:-1])
    for method in methods:
        method.check(rounds)
        method.check_server(Server(config, federation))
        rounds = method.inner_rounds(rounds)
    site = Site(federation.task, federation.class_names, federation.store)
    for name, args in config.strategy.items():
        registry.build("client", name, **registry.accepted("client", name, args)).check(site)
    if needs_counts(config):
        check_prior(config, federation)


def payload_of(config: RunConfig, model: Classifier) -> int:
    """Bytes of a model's weights and buffers, as they travel: without those that stay at the clients."""
    arrays = shared_of(config, parameters_of(model) | buffers_of(model)).values()
    return sum(value.nbytes for value in arrays)


def arrivals_of(config: RunConfig, federation: Federation, exchange: Exchange, timed: bool) -> Arrivals:
    """What a run keeps of whose updates arrived: for metrics if it has a clock, for the prior if that follows them."""

    def told(client: int) -> np.ndarray | None:
        if config.prior.provenance != "oracle":
            return exchange.told.train.get(client)
        held: np.ndarray = federation.counts[client]
        return held

    follows = config.prior.weighting == "arrived" and needs_counts(config)
    counts = federation.counts if timed else None
    kept = federation.n_clients if config.clients.models is not None else 0
    if not follows:
        return Arrivals(counts, federation.class_names, clients=kept)
    uniform = resolved_weight(config, contracts_of(config)) == "uniform"
    whole = float(len(exchange.client_sampler.eligible) if uniform else federation.train_sizes.sum())
    return Arrivals(counts, federation.class_names, told, whole, kept)


def live_of(config: RunConfig, folder: RunFolder, grid: Grid) -> Live | None:
    """What takes replies as they come, of a training without rounds at sites or on record; None for any other run.

    Raises:
        Damaged: the journal of arrivals, or the record, is not as it was written.
    """
    if not registry.flags("pace", config.pace["name"]).get("asynchronous") or not isinstance(grid, SimulationGrid):
        return None
    if (recorded := folder.path / RECORDED).is_file():
        journal = ArrivalJournal(folder.path)
        return Live(journal, RecordedChannel(grid, read_arrivals(recorded)[0], len(journal.arrivals)))
    channel = grid.channel()
    return None if channel is None else Live(ArrivalJournal(folder.path), channel)


def check_networks(config: RunConfig, federation: Federation) -> None:
    """Build every network of a run once: each refuses its own settings, and what it cannot share or keep private.

    Raises:
        ConfigError: names the network or the setting.
    """
    for own in _layout(config, federation).configs.values():
        model = build_model(own, federation.n_classes, federation.input_shape)
        check_model(own.privacy, model)
        if own.model != config.model and is_from_elsewhere(own.model["name"]):  # the run's own: `check_client_parts`
            probe_model(own.model["name"], model, federation.input_shape)


def _layout(config: RunConfig, federation: Federation) -> Layout:
    """What of each model is averaged among whom; clients are looked at one by one only if their models may differ."""
    own = config.clients.models is not None
    kinds = kinds_of(config, federation.n_clients, federation.sites_of) if own else None
    return Layout.of(config, federation.n_classes, federation.input_shape, kinds)


def check_head(config: RunConfig, federation: Federation) -> None:
    """Refuse an aggregator that reads the trained bias of the head, with a model that has none.

    Raises:
        ConfigError: names the aggregator and the model.
    """
    name = config.aggregator["name"]
    if not registry.flags("aggregator", name).get("needs_head_bias"):
        return
    for own in kind_configs(config).values():
        found = head_arrays(build_model(own, federation.n_classes, federation.input_shape))
        if set(found) != {HEAD, BIAS}:
            raise ConfigError(
                f"aggregator '{name}' reads the trained bias of the model's head, and {own.model['name']} has none; "
                "use model.head=linear, or another aggregator"
            )


def admission_of(
    config: RunConfig, federation: Federation, features: int, attackers: Attackers | None = None
) -> Admission:
    """What every reply of a run is checked against.

    Args:
        features: number of features that the model's head takes.
        attackers: simulated clients that may have been approved with a false number of rows.
    """
    contracts = contracts_of(config)
    row = federation.input_shape
    axes = {"C": federation.n_classes, "D": max(1, len(federation.domains)), "d": features, "F": math.prod(row)}
    axes["t"] = features * (features + 1) // 2
    if subgroups := parse_subgroups(config.data.get("subgroups")):
        groups = [len(one.groups) for one in attributes_of(subgroups, federation)]
        axes |= {"A": len(groups), "G": max(groups), "B": BINS}
    sizes = Sizes(
        axes=axes,
        row=row,
        multilabel=federation.task == "multilabel",
        resampled=resamples(config),
        epochs=config.local.epochs,
        batch_size=config.local.batch_size,
        weighting=resolved_weight(config, contracts),
    )
    sizes_of = federation.train_sizes, federation.validation.sizes
    rows = HeldRows(*sizes_of)
    if attackers is not None:
        claimed = {client: (attackers.attack.rows(rows[client][0]), rows[client][1]) for client in attackers.clients}
        rows = HeldRows(*sizes_of, claimed)
    regions = dict(enumerate(federation.regions))
    return Admission(contracts, config.strategy, sizes, rows, regions=regions, least_sites=config.clients.min_members)


def program(
    config: RunConfig, federation: Federation, method: Any, context: RunContext, evaluator: Evaluator
) -> Generator[Step, Any, None]:
    """Steps to gather the prior and to find tau, the method's program, and what is asked of the final model.

    That are the clients' losses by temperature, if they are wanted, and their scores, if the server cannot score.
    """
    methods = [registry.get("strategy", name).set_to(args or {}) for name, args in config.strategy.items()]
    sets_prior = any(method.flags.get("sets_prior") for method in methods)
    if needs_counts(config) and not (sets_prior and config.prior.provenance == "clear_sum"):
        yield from gather_prior(config, federation, context)
    if not any(registry.flags("strategy", name).get("cycles") for name in config.strategy):
        yield from context.find_taus()
    yield from method.program(context)
    if evaluator.waits_for_tau:
        raise RunFailed(
            "no part of the strategy says when all rows are labelled: its program must do `yield from run.find_taus()` "
            "before it trains on them; or give calibration.la_post.tau as a number"
        )
    if config.evaluation.temperature:
        evaluator.held_out = yield from gather_losses(context, federation)
    if not len(federation.test):
        idle = evaluator.idle_clients()
        evaluator.take((yield from gather_scores(context, config, federation, evaluator.taus, idle)))
    yield from gather_explanations(context, config, federation)


def _find_taus(context: RunContext, evaluator: Evaluator) -> Generator[Step, Any, None]:
    evaluator.take_taus((yield from find_taus(context)))


def _client_states(folder: RunFolder, exchange: Exchange) -> dict[int, RecordDict]:
    """What the clients of a simulation have kept, as of their last message."""
    store = StateStore(folder.path / "clients")
    return {client: store.load(client, version) for client, version in exchange.versions.current.items()}


def models_by_kind(
    config: RunConfig, federation: Federation, method: Strategy, linear: bool, layout: Layout, kinds: Sequence[str]
) -> ModelsByKind:
    """The model of a run whose clients train different networks: fresh weights, and an aggregator for each group."""
    shape, groups = (federation.n_classes, federation.input_shape), {}
    models = {kind: build_model(own, *shape) for kind, own in layout.configs.items()}
    for name, members in layout.groups().items():
        model = models[members[0]]  # whose draws are where weights that kinds share start
        holders = sum(bool(n) and kinds[k] in members for k, n in enumerate(federation.train_sizes.tolist()))
        aggregator = Aggregator(
            method,
            linear,
            layout.part(name, shared_of(config, parameters_of(model))),
            layout.part(name, shared_of(config, buffers_of(model))),
            server_lr=server_lr_of(config),
            value_ratio=config.clients.max_value_ratio,
        )
        groups[name] = Group(members, build_aggregator(config, holders), aggregator)
    return ModelsByKind(layout, kinds, groups)


def _global_model(
    config: RunConfig,
    federation: Federation,
    method: Strategy,
    linear: bool,
    layout: Layout,
    kinds: Sequence[str],
    context: RunContext,
) -> Callable[[int], Aggregator]:
    """The factory of the global model by the number of resets; weights are ``context.initial`` if a method set them."""

    def build(draw: int) -> Aggregator:
        if config.clients.models is not None:
            return models_by_kind(config, federation, method, linear, layout, kinds)
        if draw:  # after a Reset: the methods keep their state, around a new aggregator
            cast(Any, chain(method)[-2]).inner = build_aggregator(config, federation.n_holders)
        model = build_model(config, federation.n_classes, federation.input_shape, draw)
        if context.initial:
            load_into(model, {name: torch.from_numpy(np.array(value)) for name, value in context.initial.items()})
        return Aggregator(
            method,
            linear,
            shared_of(config, parameters_of(model)),
            shared_of(config, buffers_of(model)),
            server_lr=server_lr_of(config),
            value_ratio=config.clients.max_value_ratio,
        )

    return build


def _context(
    folder: RunFolder, config: RunConfig, federation: Federation, progress: ProgressBar, server: Server
) -> RunContext:
    """What a method's program sees of the run as configured; models and what depends on the exchange are added."""
    return RunContext(
        rounds=config.rounds,
        n_clients=federation.n_clients,
        n_classes=federation.n_classes,
        class_names=tuple(federation.class_names),
        seed=config.seed,
        clients_need_counts=_clients_need_counts(config),
        minority=tuple(federation.minority),
        train_counts=federation.class_totals,
        method_sets_prior=needs_counts(config) and config.prior.provenance == "clear_sum",
        prior_from_counts=lambda counts: prior_from_counts(counts.astype(np.float64), config),
        artifact=folder.artifact,
        server=server,
        working=progress.work,
        prior_view=config.prior.view,
        ledger=ledger_of(config, federation.n_clients),
        learning_rates=lambda server_round: learning_rates(config, server_round),
    )


def build_loop(
    folder: RunFolder,
    config: RunConfig,
    federation: Federation,
    grid: Grid,
    tracker: Tracker,
    progress: ProgressBar,
    run_fold: RunFold | None = None,
) -> tuple[Loop, FolderCheckpointer, Evaluator]:
    """Assemble a run's loop; nothing runs yet.

    Args:
        run_fold: trains without a fold, for a tau that is found on held-out rows.
    """
    method, linear = build_method(config, federation.n_holders)
    layout, own_models = _layout(config, federation), config.clients.models is not None or bool(config.clients.private)
    kinds = kinds_of(config, federation.n_clients, federation.sites_of) if own_models else ()

    server = Server(config, federation)
    context = _context(folder, config, federation, progress, server)
    context.models["global"] = _global_model(config, federation, method, linear, layout, kinds, context)
    attackers = attackers_in(config, federation)
    if attackers is not None:
        context.attackers = attackers.clients
        folder.artifact("attackers.json", (json.dumps(attackers.facts()) + "\n").encode())
        progress.note(attackers.line())
    if not own_models:
        evaluator = Evaluator(config, federation, attackers)
    else:
        models = site_models(config, kinds, server.holders(), federation.client_names)
        evaluator = EnsembleEvaluator(
            config, federation, layout, models, lambda: _client_states(folder, exchange), lambda: loop.arrivals.seen
        )

    def sent(loop: Loop, metrics: dict[str, dict[str, float]]) -> None:
        progress.round(loop, metrics)
        tracker.send()

    checkpointer = FolderCheckpointer(
        folder,
        evaluator,
        list(evaluator.labels),
        config.evaluation.every,
        config.checkpoint.every,
        config.evaluation.last_k,
        sent,
        evaluator.tested,
    )
    left_out = LeftOut(folder.path, federation.client_names, checkpointer.event)
    exchange = Exchange(
        grid,
        ClientSampler(config.clients, config.seed, federation.train_sizes),
        config.clients.min_reply_fraction,
        admission_of(config, federation, evaluator.model.head.in_features, attackers),
        left_out,
        config.clients,
        attackers,
        None if config.clients.models is None else kinds,
    )
    if tau_rules(config):
        assert run_fold is not None, "a tau that is a rule needs a run_fold"
        states = partial(_client_states, folder, exchange)
        context.search_taus = partial(search_taus, config, federation, context, run_fold, states)
        context.find_taus = partial(_find_taus, context, evaluator)
    context.aside = lambda: set(left_out.aside(exchange.versions.message + 1))
    context.without = lambda query, client, reason: left_out.add_missing(
        exchange.versions.message, query, client, reason
    )
    live = live_of(config, folder, grid)
    payload = payload_of(config, evaluator.model)
    pacing = pacing_of(config, federation, exchange.client_sampler, payload, live is not None)
    arrivals = arrivals_of(config, federation, exchange, pacing.timed)
    context.counts_of_arrivals = arrivals.sets_prior
    loop = Loop(
        method,
        exchange,
        context,
        lambda v: program(config, federation, method, v, evaluator),
        checkpointer,
        # Replies that arrive together scored different versions of the model: live, clients are asked at the end.
        evaluate_clients=bool(federation.validation.sizes.any()) and not config.evaluation.secure and live is None,
        pacing=pacing,
        arrivals=arrivals,
        live=live,
    )
    return loop, checkpointer, evaluator
