"""The local training loop: index batches on tensors in memory.

It uses no DataLoader and no per-parameter optimiser bookkeeping: on small models these cost more than the arithmetic.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from fedimb.errors import ConfigError, FedimbError
from fedimb.models.base import Classifier
from fedimb.training.optim import Optimizer, build_optimizer, clip_gradients, decays, gradients_of
from fedimb.training.precision import forward_in
from fedimb.training.spec import Mixed, Sampler, TrainSpec


@dataclass(frozen=True)
class LocalResult:
    """Result of local training.

    Attributes:
        steps: optimiser steps actually run.
        loss: mean batch loss over those steps (NaN if there were none).
        examples: rows in the view trained on.
        records: extra records of the local objectives.
    """

    steps: int
    loss: float
    examples: int
    records: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def draw_epoch(sampler: Sampler, labels: Tensor, generator: torch.Generator) -> Tensor:
    """One epoch's positions, int64. FedimbError if the sampler chose no row, since training would never end."""
    order = sampler.epoch(labels, generator)
    if len(order) == 0:
        raise FedimbError(f"sampler {type(sampler).__name__} chose none of {len(labels)} rows; it must choose one")
    return order


def labels_for(sampler: Sampler, y: Tensor, classes: Tensor) -> Tensor:
    """What a sampler orders rows by: their primary classes [n], or y, which may be targets, if it ``needs_targets``."""
    return y if getattr(sampler, "needs_targets", False) else classes


def _batches(
    sampler: Sampler, labels: Tensor, size: int, join_single: bool, generator: torch.Generator
) -> Iterator[tuple[Tensor, int]]:
    """Endless index batches, epoch after epoch, each with the number of planned steps that it consumes.

    ``join_single``: a last batch of one row is joined to the previous one and consumes both steps, because BatchNorm
    cannot train on one row; if an epoch has only one row, its step is skipped.
    """
    while True:
        order = draw_epoch(sampler, labels, generator)
        batches = [(rows, 1) for rows in order.split(size)]
        if join_single and len(batches[-1][0]) == 1:
            rest = batches[-2:-1]
            joined = torch.cat([rows for rows, _ in batches[-2:]]) if rest else batches[-1][0][:0]
            batches[-2:] = [(joined, len(rest) + 1)]
        yield from batches


def has_batch_norm(model: nn.Module) -> bool:
    """Whether any layer normalises over the batch."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def optimizer_of(model: Classifier, spec: TrainSpec) -> Optimizer:
    """A new optimiser of the model's trainable parameters and of the loss's own, for `train_locally`."""
    decayed = [decays(module, spec.decay_exempt) for module in (model, spec.loss)]
    return build_optimizer(spec, _trained(model, spec), decayed[0] + decayed[1])


def _trained(model: Classifier, spec: TrainSpec) -> list[Tensor]:
    return [p for module in (model, spec.loss) for p in module.parameters() if p.requires_grad]


def train_locally(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    spec: TrainSpec,
    generator: torch.Generator,
    primary: Tensor | None = None,
    optimizer: Optimizer | None = None,
) -> LocalResult:
    """Run ``spec.steps`` optimiser steps on rows x [n, *shape] float32, labels y [n] int64; the model changes in place.

    If rows have several labels, y is targets [n, C] float32 and ``primary`` [n] int64 is the class per row for
    samplers, augmentations and `LocalObjective.on_rows`; losses and `LocalObjective.loss` get targets. Where an
    augmentation mixes rows, the loss is mixed; objectives get the rows' own labels.

    Args:
        optimizer: of `optimizer_of`, for a training that goes on over several calls: momentum and moments stay, and
            ``spec.lr`` is its learning rate from now on. None: a new one, as every round of a federation starts.

    If an epoch's last batch of one row is joined to the previous one (BatchNorm models only), the epoch has one step
    less; the number of epochs stays the same, so fewer steps are run, see ``LocalResult.steps``.

    Raises:
        ConfigError: batches of one row and a model with BatchNorm; a precision that this processor does not have.
        FedimbError: the sampler chose no row.
    """
    if spec.batch_size == 1 and has_batch_norm(model):
        raise ConfigError("local.batch_size=1 cannot train a model with BatchNorm: use 2 or more, or GroupNorm")
    if len(y) == 0 or spec.steps == 0:
        return LocalResult(steps=0, loss=float("nan"), examples=len(y))
    model.train()
    spec.loss.train()
    parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    trained = _trained(model, spec)
    if optimizer is None:
        optimizer = optimizer_of(model, spec)
    elif [id(p) for p in optimizer.parameters] != [id(p) for p in trained]:
        raise ValueError("this optimizer is of another model, or of a loss with other parameters: use optimizer_of")
    else:
        optimizer.set_lr(spec.lr)
    classes = y if primary is None else primary
    for objective in spec.objectives:
        objective.on_rows(classes)
        objective.setup(model, parameters)
        objective.before_training(model, x, classes, generator)
    needs_features = bool(getattr(spec.loss, "needs_features", False))
    forward = forward_in(spec.precision, model, x.device)

    total, steps, planned = torch.zeros((), device=x.device), 0, spec.steps
    labels_of_rows = labels_for(spec.sampler, y, classes)
    batches = _batches(spec.sampler, labels_of_rows, spec.batch_size, has_batch_norm(model), generator)
    try:
        while planned > 0:
            rows, used = next(batches)
            planned -= used
            if len(rows) == 0:
                continue
            labels, inputs = y[rows], x[rows]
            mixed: Mixed | None = None
            for augment in spec.augmentations:
                augmented = augment(inputs, classes[rows], x, classes, generator)
                mixed = augmented if isinstance(augmented, Mixed) else mixed
                inputs = augmented.inputs if isinstance(augmented, Mixed) else augmented
            for objective in spec.objectives:
                objective.on_batch(inputs)
            features, logits = forward(inputs)
            seen = logits
            for objective in spec.objectives:
                seen = objective.on_logits(features, seen, labels)
            further = {"features": features} if needs_features else {}
            loss = spec.loss(seen, labels, **further)
            if mixed is not None:
                partners = spec.loss(seen, labels[mixed.partners], **further)
                loss = mixed.share * loss + (1 - mixed.share) * partners
            regularized = loss
            for objective in spec.objectives:
                extra = objective.loss(model, features, logits, labels)
                if extra is not None:
                    regularized = regularized + extra
            gradients = gradients_of(regularized, trained)
            if spec.max_grad_norm is not None:  # before corrections of the direction, such as a control variate
                clip_gradients(gradients, spec.max_grad_norm)
            for objective in spec.objectives:
                objective.on_gradients(parameters, gradients[: len(parameters)])
            optimizer.step(gradients)
            total += loss.detach()
            steps += 1
    except Exception as error:
        error.add_note(f"in local step {steps + 1} of {spec.steps}")
        raise

    records: dict[str, dict[str, np.ndarray]] = {}
    for objective in spec.objectives:
        records.update(objective.after(model, steps))
    mean = float(total) / steps if steps else float("nan")
    return LocalResult(steps=steps, loss=mean, examples=len(y), records=records)
