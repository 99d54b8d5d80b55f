"""The models a site uses besides the global one, and KAFAL's local training, for the client side of active learning."""

import math

import numpy as np
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from fedimb.clientapp.context import ClientContext
from fedimb.config.parts import build_model
from fedimb.models.base import Classifier, buffers_of, load_into, parameters_of
from fedimb.records import array_record, arrays_of, to_numpy
from fedimb.seeds import Stream
from fedimb.selection.queries.base import Distillation
from fedimb.training.forward import forward_batched
from fedimb.training.local import optimizer_of, train_locally
from fedimb.training.losses.base import AdjustedCrossEntropy
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.objectives.compensation import Compensation
from fedimb.training.objectives.taught import ScaledCrossEntropy, TeacherDistillation
from fedimb.training.spec import TrainSpec

UPDATED = "updated"


def fresh_model(cycle: int, context: ClientContext) -> Classifier:
    """An untrained model with initial weights that all clients share within a cycle."""
    store = context.data.store
    model = build_model(context.config, len(store.class_names), store.input_shape, 1000 + cycle)
    return model.to(next(context.model.parameters()).device)


def local_model(cycle: int, context: ClientContext, epochs: int, stop: float) -> Classifier:
    """A model trained on the labelled rows only: at most ``epochs``, or until the share ``stop`` is correct.

    It is one training: the optimiser keeps its momentum from epoch to epoch.
    """
    x, y = context.data.tensors("labelled")
    model = fresh_model(cycle, context)
    spec = context.spec().change(steps=_steps(len(y), context), objectives=(), loss=CrossEntropy())
    generator, optimizer = context.generator(Stream.TRAIN, x.device), optimizer_of(model, spec)
    for epoch in range(epochs):
        late = epoch >= 0.74 * epochs  # the paper's milestone: epoch 37 of 50
        now = spec.change(lr=spec.lr * 0.1) if late else spec
        train_locally(model, x, y, now, generator, optimizer=optimizer)
        if float((forward_batched(model, x)[1].argmax(1) == y).float().mean()) >= stop:
            break
    return model


def distilled_model(cycle: int, context: ClientContext, how: Distillation) -> Classifier:
    """A model trained on the labelled rows and on the received model's outputs for them."""
    x, y = context.data.tensors("labelled")
    model, temperature = fresh_model(cycle, context), how.temperature
    spec = context.spec()
    spec = spec.change(
        steps=_steps(len(y), context),
        lr=spec.lr * how.lr_factor,
        loss=ScaledCrossEntropy(1 - how.share),
        objectives=(TeacherDistillation(context.model, how.share, temperature),),
    )
    said = log_softmax(forward_batched(context.model, x)[1] / temperature, dim=1)
    generator, optimizer = context.generator(Stream.TRAIN, x.device), optimizer_of(model, spec)
    best, waited = math.inf, 0
    for _ in range(how.epochs):
        train_locally(model, x, y, spec, generator, optimizer=optimizer)
        logits = forward_batched(model, x)[1]
        apart = kl_div(log_softmax(logits / temperature, dim=1), said, reduction="batchmean", log_target=True)
        objective = float((1 - how.share) * cross_entropy(logits, y) + how.share * temperature**2 * apart)
        best, waited = (objective, 0) if objective < best else (best, waited + 1)
        if waited >= how.patience:
            break
    return model


def _steps(rows: int, context: ClientContext) -> int:
    return math.ceil(rows / context.config.local.batch_size)


def keep_updated(context: ClientContext) -> None:
    """Keep the weights just trained, before they are merged, unless training diverged."""
    trained = parameters_of(context.model) | buffers_of(context.model)
    if all(np.isfinite(value).all() for value in trained.values()):
        context.state[UPDATED] = array_record(trained)
        context.state[f"{UPDATED}_round"] = array_record({"round": np.array([context.round], np.int64)})


def updated_model(cycle: int, context: ClientContext, wanted_round: int) -> Classifier | None:
    """The client's own weights after that round; None if it did not train in it."""
    if UPDATED not in context.state or int(arrays_of(context.state, f"{UPDATED}_round")["round"][0]) != wanted_round:
        return None
    model = fresh_model(cycle, context)
    kept = to_numpy(context.state.array_records[UPDATED])
    load_into(
        model, {name: torch.from_numpy(value).to(next(model.parameters()).device) for name, value in kept.items()}
    )
    return model


def compensated(spec: TrainSpec, context: ClientContext, floor: float, distils: bool) -> TrainSpec:
    """KAFAL's local training: balanced softmax over the client's own label counts and, if ``distils``, compensation.

    The counts are of the labelled rows it trains on, which an inner coreset may have reduced.
    What it cannot be combined with: `fedimb.strategies.active.KCFU`.
    """
    counts = torch.from_numpy(context.data.counts("trained_on"))
    spec = spec.change(loss=AdjustedCrossEntropy(counts.double().clamp_min(floor).log().float()))
    if not distils:
        return spec
    rows = context.data.tensors("pool")[0]
    compensation = Compensation(rows, counts, context.generator(Stream.METHOD, rows.device), floor=floor)
    return spec.change(objectives=(*spec.objectives, compensation))
