"""Handling a train message: prepare, train, reply. In between, many clients may be trained at once."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from flwr.app import MetricRecord, RecordDict
from torch import Tensor

from fedimb import registry
from fedimb.clientapp.context import ClientContext
from fedimb.clientapp.private_weights import PrivateWeights
from fedimb.clientapp.resampling import local_prior, resampled, trained_counts
from fedimb.config.parts import (
    augmentation_makers,
    corrects_by_own_counts,
    learning_rate,
    loss_maker,
    optimizer_settings,
    part_maker,
    resamples,
    resolved_weight,
)
from fedimb.contracts import platform as names
from fedimb.contracts.base import Contract
from fedimb.evaluation.confusion import confusion_of
from fedimb.models.base import Classifier, Resident
from fedimb.privacy.updates import check_model, clip_and_noise, cohort_size, noise_share
from fedimb.records import Arrays, array_record, arrays_of
from fedimb.schema import RunConfig
from fedimb.seeds import Stream, torch_generator
from fedimb.training.local import LocalResult, train_locally
from fedimb.training.spec import TrainSpec
from fedimb.training.stacked import (
    Trained,
    Work,
    budget_of,
    train_stacked,
    why_model_not_stackable,
    why_spec_not_stackable,
)


@dataclass
class Prepared:
    """One client that is ready to train: everything before the first step is done."""

    context: ClientContext
    spec: TrainSpec
    client_methods: list[tuple[Contract, Any]]
    work: Work
    reply: RecordDict
    metrics: dict[str, float]
    real_rows: int | None = None
    """Rows before a resampler: they are what the client is weighted and counted by."""


class LocalTraining:
    """Local training of a run's clients.

    Args:
        config: resolved run configuration.
        contracts: the platform's, then one per method, outermost first.
        resident: the resident model.
        n_classes, input_shape: number of classes of the data, and shape of one row.
        private_weights: what of the model stays at each client.
    """

    def __init__(
        self,
        config: RunConfig,
        contracts: Sequence[Contract],
        resident: Resident,
        n_classes: int,
        input_shape: tuple[int, ...],
        private_weights: PrivateWeights,
    ) -> None:
        self._private_weights = private_weights
        self.config, self._resident, self._n_classes = config, resident, n_classes
        self.model = cast(Classifier, resident.model)
        self._device = next(self.model.parameters()).device
        self._stacks = why_model_not_stackable(self.model) is None
        check_model(config.privacy, self.model)
        self._weighting = resolved_weight(config, list(contracts))
        self._start_loss = bool(registry.flags("aggregator", config.aggregator["name"]).get("needs_start_loss"))
        # Parts are checked once here and rebuilt for every message, so that they carry no state over.
        self._make_loss = loss_maker(config)
        self._make_sampler = part_maker("sampler", config.sampler)
        self._make_augmentations = augmentation_makers(config, input_shape)
        self._make_objectives = [part_maker("objective", one) for one in config.aggregator.get("objectives") or []]
        self._make_methods = [
            (contract, registry.maker("client", name, **registry.accepted("client", name, args)))
            for contract, (name, args) in zip(contracts[1:], config.strategy.items(), strict=True)
        ]

    def client_methods(self) -> list[tuple[Contract, Any]]:
        """The client sides of the methods, newly built, outermost first, each with its contract."""
        return [(contract, make()) for contract, make in self._make_methods]

    def base_spec(self, context: ClientContext) -> TrainSpec:
        """Local training as configured, before any method changes it; at ``local.lr``, which rounds schedule."""
        return TrainSpec(
            view="trained_on",
            steps=context.steps_over(context.data.known_view),  # before any row is left out: equal for every method
            **optimizer_settings(self.config.local),
            loss=self._make_loss(
                n_classes=self._n_classes,
                prior=self._prior(context),
                local_counts=trained_counts(context),
                round=context.round,
                rounds=self.config.rounds,
                label_sets=context.data.label_sets,
            ),
            sampler=self._make_sampler(),
            objectives=tuple(make() for make in self._make_objectives),
            augmentations=tuple(make() for make in self._make_augmentations),
        )

    def _prior(self, context: ClientContext) -> np.ndarray | None:
        if self.config.prior.provenance == "local":
            return local_prior(context)
        return context.counts

    def prepare(self, context: ClientContext, evaluate: bool) -> Prepared:
        """Score the received model if ``evaluate`` and all of it was trained or received, and let the methods say what
        to train."""
        started = time.perf_counter()
        reply = RecordDict()
        scored = evaluate and not self.config.evaluation.secure and not context.untrained
        if scored and len(context.data.rows("validation")):
            reply[names.CONFUSION] = array_record({"matrix": confusion_of(*context.scored("validation"))})
        client_methods = self.client_methods()
        set_views(client_methods, context)
        spec = self.base_spec(context).change(lr=learning_rate(self.config, context.round))
        for _, client_method in reversed(client_methods):  # innermost first, so an outer method has the last word
            spec = client_method.train_spec(spec, context)
        spec = spec.change(loss=spec.loss.to(self._device))
        x, y = context.data.tensors(spec.view)
        primary = context.data.primary(spec.view)
        if spec.labels is not None:
            y = primary = spec.labels.to(self._device)
        real = y if resamples(self.config) else None
        if real is not None:
            x, y = resampled(context)
            primary = y
        if context.attack is not None:
            x, y, primary = _poisoned(context, x, y, primary)
        metrics: dict[str, float] = {}
        if self._start_loss:
            with torch.no_grad():
                own = y if real is None else real
                metrics["start_loss"] = float(spec.loss(context.forward(spec.view)[1], own)) if len(own) else 0.0
        for objective in spec.objectives:
            objective.receive(context.content, context.state)
        if spec.extra is not None:
            made_x, made_y = (part.to(self._device) for part in spec.extra)
            x, y, primary = torch.cat([x, made_x]), torch.cat([y, made_y]), torch.cat([primary, made_y])
        work = Work(x, y, spec, context.generator(Stream.TRAIN, self._device), primary)
        metrics["seconds"] = time.perf_counter() - started
        return Prepared(context, spec, client_methods, work, reply, metrics, None if real is None else len(real))

    def train(self, prepared: Prepared) -> LocalResult:
        """Train one client; afterwards its weights are in the resident model."""
        started = time.perf_counter()
        work = prepared.work
        result = train_locally(self.model, work.x, work.y, work.spec, work.generator, work.primary)
        prepared.metrics["seconds"] += time.perf_counter() - started
        return result

    def train_together(self, prepared: Sequence[Prepared]) -> dict[int, Trained]:
        """Train the clients that can be stacked, all from the resident model's weights: position -> result.

        The elapsed seconds are divided among them by their number of steps.
        """
        chosen = [i for i, one in enumerate(prepared) if self._stacks and why_spec_not_stackable(one.spec) is None]
        started = time.perf_counter()
        trained = train_stacked(self.model, [prepared[i].work for i in chosen], budget_of(self._device))
        taken = time.perf_counter() - started
        steps = sum(result.steps for result, _ in trained)
        for i, (result, _) in zip(chosen, trained, strict=True):
            prepared[i].metrics["seconds"] += taken * result.steps / max(steps, 1)
        return dict(zip(chosen, trained, strict=True))

    def reply(self, prepared: Prepared, result: LocalResult) -> RecordDict:
        """The reply, from the resident model as trained."""
        started = time.perf_counter()
        context, reply = prepared.context, prepared.reply
        if prepared.real_rows is not None:
            result = replace(result, examples=prepared.real_rows)
        for objective in prepared.spec.objectives:
            objective.keep(context.state)
        if result.steps:
            counts = partial(trained_counts, context) if corrects_by_own_counts(self.config) else None
            self._private_weights.keep(context.state, counts)
        trained, about = self._protected(context)
        if context.attack is not None:
            trained = context.attack.update(arrays_of(context.content, names.ARRAYS), trained, _attackers_rng(context))
        reply[names.ARRAYS] = array_record(trained, copy=False)
        if buffers := self._resident.buffers():
            reply[names.BUFFERS] = array_record(buffers, copy=False)
        for key, arrays in result.records.items():
            reply[key] = array_record(arrays)
        for _, client_method in reversed(prepared.client_methods):
            for key, record in client_method.after_training(result, context).items():
                reply[key] = record
        metrics = {
            **prepared.metrics,
            "num-examples": _claimed(context, self._weight(prepared, result)),
            "train_loss": result.loss,
            "steps": float(result.steps + prepared.spec.taken),
            "examples": float(result.examples),
            **about,
        }
        metrics["seconds"] += time.perf_counter() - started
        reply[names.METRICS] = MetricRecord(metrics)  # type: ignore[arg-type]
        return reply

    def _protected(self, context: ClientContext) -> tuple[Arrays, dict[str, float]]:
        """The trained weights as they may leave, and the metrics about them that may be reported (none with noise)."""
        trained, privacy = self._resident.parameters(), self.config.privacy
        if privacy.clip is None:
            return trained, {}
        received = arrays_of(context.content, names.ARRAYS)
        sigma = 0.0
        if privacy.noise > 0:
            sigma = noise_share(privacy, cohort_size(self.config, dict(context.content.config_records[names.STEP])))
        draw = partial(context.secrets.normal, context, Stream.UPDATE_NOISE)
        sent, norm = clip_and_noise(received, trained, privacy.clip, sigma, draw)
        return sent, {"train_loss": math.nan, "examples": math.nan} if sigma else {"update_norm": norm}

    def _weight(self, prepared: Prepared, result: LocalResult) -> float:
        context, extra = prepared.context, prepared.spec.extra
        match self._weighting:
            case "uniform":
                return 1.0 if result.examples else 0.0
            case "original":
                return float(len(context.data.rows("train")))
            case "real":
                return float(result.examples - (0 if extra is None else len(extra[1])))
            case _:
                return float(result.examples)


def _poisoned(context: ClientContext, x: Tensor, y: Tensor, primary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows an attacker trains on; the order of rows follows the labels it trains on."""
    attack = context.attack
    assert attack is not None
    seed = torch_generator(context.config.seed, Stream.POISON, 0, context.client)
    changed_x, changed_y = attack.poison(x, y, seed)
    return changed_x, changed_y, primary if y is changed_y else changed_y


def _attackers_rng(context: ClientContext) -> np.random.Generator:
    return context.rng(Stream.ATTACK)


def _claimed(context: ClientContext, weight: float) -> float:
    return weight if context.attack is None else context.attack.weight(weight)


def set_views(client_methods: Sequence[tuple[Contract, Any]], context: ClientContext) -> None:
    """Let every method say what is labelled, then set its views; innermost first, so that an outer one decides."""
    for _, client_method in reversed(client_methods):
        client_method.labels(context)
    for _, client_method in reversed(client_methods):
        client_method.views(context)


def weights_into(model: Classifier, weights: Sequence[Tensor]) -> None:
    """Copy weights, in the order of the trainable parameters, into the resident model."""
    with torch.no_grad():
        torch._foreach_copy_([p for p in model.parameters() if p.requires_grad], list(weights))
