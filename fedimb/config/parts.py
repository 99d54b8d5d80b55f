"""From a configuration to its parts: what both the server and the clients build."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedimb import registry
from fedimb.config.validate import GIVEN
from fedimb.contracts.base import Contract
from fedimb.contracts.region import REGIONS
from fedimb.data.federation import Federation
from fedimb.data.normalize import POOLED, pooled_normalization
from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.models.normalized import normalize_inputs
from fedimb.models.probe import is_from_elsewhere, probe_model
from fedimb.plain import Settings
from fedimb.schema import LocalConfig, RunConfig, calibration_part
from fedimb.seeds import Stream, seed_int
from fedimb.training.losses.smoothing import smoothed
from fedimb.training.resamplers.base import Categories, Resampler
from fedimb.training.schedules import schedule_factor
from fedimb.training.spec import Augmentation, TrainSpec


def part_maker(kind: str, config: Settings, given: tuple[str, ...] = ()) -> Callable[..., Any]:
    return registry.maker(kind, config["name"], given, **{k: v for k, v in config.items() if k != "name"})


@contextlib.contextmanager
def seeded(seed: int | torch.Tensor) -> Iterator[None]:
    """Seed torch's global CPU generator (or set it to a saved state) inside the block, and restore it afterwards.

    torch.manual_seed would also format a stack trace for every accelerator it might seed later, which takes
    milliseconds.
    """
    before = torch.default_generator.get_state()
    if isinstance(seed, int):
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():  # layers on a GPU draw from its generator
            torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.set_state(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def device_of(engine: Settings) -> torch.device:
    """Where clients compute, by ``engine.device``: ``cpu`` (default), ``cuda``, or ``auto``: cuda if there is one.

    Raises:
        ConfigError: ``cuda``, but torch finds no such device here.
    """
    wanted = engine.get("device", "cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "engine.device=cuda: torch finds no GPU here; with engine=ray give engine.gpus_per_worker too, or use "
            "engine.device=cpu"
        )
    return torch.device(wanted)


def build_model(config: RunConfig, n_classes: int, input_shape: tuple[int, ...], draw: int = 0) -> Classifier:
    """The configured model with weights drawn from the run's INIT stream (the caller's generators are not touched).

    Args:
        draw: 0 at the start; a `Reset` step draws the next.
    """
    with seeded(seed_int(config.seed, Stream.INIT, draw)):
        make = part_maker("model", config.model, ("n_classes", "input_shape"))
        model: Classifier = make(n_classes=n_classes, input_shape=input_shape)
    normalize = config.data.get("normalize")
    if normalize == POOLED:
        raise ConfigError(
            "data.normalize=pooled is computed in a simulation, from all clients' images; elsewhere give the numbers: "
            "data.normalize={mean: [...], deviation: [...]} (fedimb show RUN has those of a simulation)"
        )
    if normalize is None:
        return model
    return normalize_inputs(model, normalize["mean"], normalize["deviation"], input_shape)


def with_pooled(config: RunConfig, federation: Federation) -> RunConfig:
    """The configuration with the numbers that ``data.normalize=pooled`` stands for; others as they are."""
    if config.data.get("normalize") != POOLED:
        return config
    return config.model_copy(update={"data": config.data | {"normalize": pooled_normalization(federation)}})


def augmentation_makers(config: RunConfig, input_shape: tuple[int, ...]) -> list[Callable[[], Augmentation]]:
    """One maker per configured augmentation, in order; a maker raises ConfigError if the data do not suit it."""
    makers = [part_maker("augmentation", part, GIVEN["augmentation"]) for part in config.local.augmentation]
    return [partial(make, input_shape=input_shape) for make in makers]


def loss_maker(config: RunConfig) -> Callable[..., torch.nn.Module]:
    """Makes the configured loss, with ``local.label_smoothing``; called with the arguments that fedimb gives."""
    make, smoothing = part_maker("loss", config.loss, GIVEN["loss"]), config.local.label_smoothing
    if not smoothing:
        return make
    name = config.loss["name"]
    if registry.flags("loss", name).get("uses_local_counts"):
        raise ConfigError(
            f"local.label_smoothing={smoothing:g} would raise the classes that a client lacks, which loss '{name}' "
            "lowers far; set local.label_smoothing=0, or another loss"
        )
    return lambda **given: smoothed(make(**given), smoothing, name)


def optimizer_settings(local: LocalConfig) -> dict[str, Any]:
    """The fields of a `TrainSpec` that say how a step is made, at the unscheduled learning rate."""
    return {
        "batch_size": local.batch_size,
        "optimizer": local.optimizer,
        "lr": local.lr,
        "momentum": local.momentum,
        "weight_decay": local.weight_decay,
        "nesterov": local.nesterov,
        "decay_exempt": tuple(local.decay_exempt),
        "max_grad_norm": local.max_grad_norm,
        "precision": local.precision,
    }


def phase(config: RunConfig, round: int) -> tuple[int, int]:
    """(round, rounds) of the training from fresh weights that a round of the run belongs to.

    A method that trains in cycles (flag ``cycles``) and restarts in each starts schedules again with each cycle.
    """
    for name, args in config.strategy.items():
        if registry.flags("strategy", name).get("cycles") and args.get("restart") and args.get("cycles"):
            length = max(1, config.rounds // int(args["cycles"]))
            return (round - 1) % length + 1, length
    return round, config.rounds


def learning_rate(config: RunConfig, round: int) -> float:
    """``local.lr`` as scheduled for a round of the run, 1-based."""
    return config.local.lr * schedule_factor(config.local.schedule, *phase(config, round))


def spec_of_rows(
    config: RunConfig,
    counts: NDArray[np.int64] | NDArray[np.float64],
    steps: int,
    input_shape: tuple[int, ...],
    round: int = 1,
    label_sets: NDArray[np.bool_] | None = None,
) -> TrainSpec:
    """Training as configured on rows of one party only: their class counts serve as both prior and local counts.

    Args:
        counts: [C] rows of each class; where cells are unknown, as if all were known.
        steps: optimiser steps.
        input_shape: shape of one row.
        round: the round, and the number of rounds, for a loss with a schedule. The learning rate is ``local.lr``.
        label_sets: [J, C] the classes of each coarse label; None: every label is a class.
    """
    make_loss = loss_maker(config)
    return TrainSpec(
        view="train",
        steps=steps,
        **optimizer_settings(config.local),
        loss=make_loss(
            n_classes=len(counts),
            prior=counts,
            local_counts=counts,
            round=round,
            rounds=round,
            label_sets=label_sets,
        ),
        sampler=part_maker("sampler", config.sampler)(),
        augmentations=tuple(make() for make in augmentation_makers(config, input_shape)),
    )


UNSEEN: Categories = ((-1, -1),)
"""For categories of a table whose columns only the sites know."""


def check_client_parts(
    config: RunConfig,
    counts: NDArray[np.int64],
    input_shape: tuple[int, ...],
    categories: Categories | None,
) -> None:
    """Build what clients build for every message and the server at every score: a part refuses its own settings.

    Args:
        counts: [C] rows of each class; any above 0 where nobody has seen the rows.
        input_shape: shape of one row.
        categories: see `resampler_of`.

    Raises:
        ConfigError: names the part, the reason, and what to set instead.
    """
    spec_of_rows(config, counts, 1, input_shape)
    resampler_of(config, categories, input_shape)
    for objective in config.aggregator.get("objectives") or []:
        made = part_maker("objective", objective)()
        made.check(len(counts))
        made.check_rows(input_shape)
    for name, args in config.calibration.items():
        registry.build("calibration", calibration_part(name), **args)
    if is_from_elsewhere(config.model["name"]):
        probe_model(config.model["name"], build_model(config, len(counts), input_shape), input_shape)


def corrects_by_own_counts(config: RunConfig) -> bool:
    """Whether a calibration corrects each site's own model by the class counts that this site alone has."""
    calibrations = [registry.flags("calibration", calibration_part(name)) for name in config.calibration]
    own = bool(config.clients.private) and config.prior.provenance == "local"
    return own and any(flags.get("needs_prior", False) for flags in calibrations)


def contracts_of(config: RunConfig, at_sites: bool = False) -> list[Contract]:
    """The platform's contract, including what the local objectives send, then one per method, outermost first.

    Of a method's contract, what its settings send: nothing else leaves a client. If clients are regions
    (``clients.regions``), the contract of their sums is in the platform's place.

    Args:
        at_sites: the contracts of the sites' own replies, which a region adds up.
    """
    for name in config.strategy:
        try:
            registry.get("contract", name)
        except ConfigError:
            raise ConfigError(
                f"strategy '{name}' has no contract: register one under its name (docs/add-a-strategy.md, section 5)"
            ) from None
    if config.clients.regions is not None and not at_sites:
        return [REGIONS, *(registry.build("contract", name) for name in config.strategy)]
    platform = registry.build("contract", "platform")
    methods = [registry.build("contract", name).of(args or {}) for name, args in config.strategy.items()]
    objectives = [registry.flags("objective", one["name"]) for one in config.aggregator.get("objectives") or []]
    sent = tuple(record for flags in objectives for record in flags.get("sends", ()))
    return [replace(platform, train=platform.train + sent), *methods]


def resolved_weight(config: RunConfig, contracts: list[Contract]) -> str:
    """What ``aggregation_weight: auto`` means for this run: the outermost method's default."""
    if config.aggregation_weight != "auto":
        return config.aggregation_weight
    return contracts[1].aggregation_weight if len(contracts) > 1 else "view"


def trains_by_phase(config: RunConfig) -> bool:
    """Whether a method of the run trains phases one after the other."""
    return any(registry.flags("strategy", name).get("phased") for name in config.strategy)


def resamples(config: RunConfig) -> bool:
    """Whether clients add rows to their own, or leave some out, before they train."""
    return bool(registry.flags("resampler", config.resampler["name"]).get("resamples", False))


def resampler_of(config: RunConfig, categories: Categories | None, input_shape: tuple[int, ...]) -> Resampler:
    """The configured resampler, for rows of this shape.

    Args:
        categories: of a table, see `Resampler`; None: the data are no table; `UNSEEN`: such as the rule can work with,
            so that everything but the columns is checked.

    Raises:
        ConfigError: the rule cannot work on such rows, or lacks a package.
    """
    if categories is UNSEEN:
        categories = ((0, 1),) if registry.flags("resampler", config.resampler["name"]).get("needs_categories") else ()
    made: Resampler = part_maker("resampler", config.resampler, GIVEN["resampler"])(categories=categories)
    made.check(input_shape)
    return made


def prior_view(config: RunConfig) -> str:
    """The view whose rows the prior counts: as configured, or the one a method trains on (flag ``prior_view``)."""
    views = [registry.flags("strategy", name).get("prior_view") for name in config.strategy]
    return next((str(view) for view in views if view), config.prior.view)


def prior_label(config: RunConfig) -> str:
    """``view/weighting/provenance``, with the guarantee of ``dp_sum``; tables group by it."""
    prior = config.prior
    label = f"{prior_view(config)}/{prior.weighting}/{prior.provenance}"
    if prior.provenance != "dp_sum":
        return label
    unit = "row" if prior.clip is None else f"patient of {prior.clip} rows"
    return f"{label}(epsilon={prior.epsilon:g}, delta={prior.delta:g} per {unit})"
