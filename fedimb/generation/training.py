"""Trains a generator: class-balanced batches, no weight decay on class embeddings, averaged weights (EMA).

AdamW (Loshchilov & Hutter, ICLR 2019) without decay on class and domain embeddings: under coupled decay an embedding
that few clients train shrinks to zero in a federation. The averaged weights are the result. A killed training continues
from its checkpoint, bit for bit.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedimb.errors import ConfigError, DataError, RunDiverged, nearest
from fedimb.generation.base import Generator, Progress
from fedimb.generation.batches import BALANCES, draw_batch, drop_conditions
from fedimb.generation.checkpoint import TrainingState, restore_training, save_training, training_digest
from fedimb.generation.examples import REFUSE, WARN, Examples, check_examples, small_classes
from fedimb.generation.subclusters import subclusters
from fedimb.registry.arguments import Count, Decay, NonNegative, Positive, PositiveCount, check_ranges, field_types

log = logging.getLogger("fedimb")
_LAST = 100  # steps whose mean loss is reported


@dataclass(frozen=True)
class Training:
    """Settings of a generator's training.

    Attributes:
        steps: optimiser steps.
        batch: rows per step, drawn with replacement.
        lr: AdamW's learning rate: `warmup` steps of linear rise, then a cosine to 0.
        weight_decay: decoupled; applied to matrices and filters, never to class and domain embeddings, biases, norms.
        ema: maximum decay of the averaged weights; the first steps use less.
        balance: ``class`` (each class in the data is equally likely in a batch) or ``rows``.
        subclusters: with ``class``: parts of a class, by k-means, that are equally likely in a batch, so that rare
            parts are made as often as common ones; each of at least 20 rows, so a small class has fewer. 1: none.
        drop: probability that a row's class is dropped, and, independently, its domain.
        clip: maximum gradient norm of a step.
        warmup: steps of linear rise.
        checkpoint_every: steps between checkpoints.
    """

    steps: PositiveCount = 500
    batch: PositiveCount = 64
    lr: Positive = 2e-3
    weight_decay: NonNegative = 0.01
    ema: Decay = 0.995
    balance: str = "class"
    subclusters: PositiveCount = 1
    drop: Decay = 0.1
    clip: Positive = 1.0
    warmup: Count = 20
    checkpoint_every: PositiveCount = 500

    def __post_init__(self) -> None:
        if self.balance not in BALANCES:
            raise ConfigError(f"generator training: balance={self.balance!r}.{nearest(self.balance, BALANCES)}")
        check_ranges("generator training", field_types(Training), vars(self))
        if self.subclusters > 1 and self.balance != "class":
            raise ConfigError(
                f"generator training: subclusters={self.subclusters} balances parts of classes: give balance=class"
            )


def train_generator(
    generator: Generator,
    examples: Examples,
    training: Training,
    seed: int,
    *,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> float:
    """Train in place; the averaged weights are in ``generator`` afterwards.

    A generator without a scale fits it to the examples; one that has a scale (loaded or set) keeps it.

    Args:
        examples: see `Examples`; classes may be absent.
        seed: of batches, noise and dropped conditions.
        checkpoint: file written now and then, continued from if it exists, and removed at the end.
        progress: called with the number of steps just done (when continuing, first with those done before).

    Returns:
        Mean loss of the last 100 steps; NaN for a generator that is not trainable, for which nothing is done.

    Raises:
        DataError: see `fedimb.generation.examples.check_examples`.
        RunDiverged: a loss that is not finite.
        FedimbError: the checkpoint cannot be read.
        ConfigError: the checkpoint belongs to another training.
    """
    if not generator.trainable:
        return math.nan
    check_examples(examples, generator.n_classes, generator.shape)
    if not generator.scaled:
        generator.fit_scale(examples)
    generator.mark_seen(examples)
    parts = _parts(generator, examples, training.subclusters, seed)
    named = {name: p for name, p in generator.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(groups(generator, training.weight_decay), lr=training.lr)
    rng = torch.Generator().manual_seed(seed)
    state = TrainingState(named, {name: p.detach().clone() for name, p in named.items()}, optimiser, rng)
    key = training_digest(asdict(training), seed, examples, generator.state_dict()) if checkpoint is not None else ""
    if checkpoint is not None and checkpoint.exists():
        restore_training(checkpoint, key, state)
        if progress is not None:
            progress(state.step)
    generator.train()
    while state.step < training.steps:
        state.losses.append(_step(generator, examples, parts, training, state))
        state.losses = state.losses[-_LAST:]
        state.step += 1
        if checkpoint is not None and state.step % training.checkpoint_every == 0:
            save_training(checkpoint, key, state)
        if progress is not None:
            progress(1)
    generator.eval()
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(state.average[name])
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return float(np.mean(state.losses))


def _parts(generator: Generator, examples: Examples, count: int, seed: int) -> Tensor | None:
    """Each row's part of its class [n], or None if classes are whole."""
    if count == 1:
        return None
    scaled = (examples.x - generator.centre.cpu()) / generator.spread.cpu()
    return subclusters(scaled, examples.y, count, REFUSE, torch.Generator().manual_seed(seed))


def _step(
    generator: Generator, examples: Examples, parts: Tensor | None, training: Training, state: TrainingState
) -> float:
    rows = draw_batch(examples.y, training.batch, training.balance, state.rng, parts)
    y = drop_conditions(examples.y[rows], generator.n_classes, training.drop, state.rng)
    d = drop_conditions(examples.d[rows], generator.n_domains, training.drop, state.rng)
    loss = generator.losses(examples.x[rows], y, d, state.rng).mean()
    value = loss.item()
    if not math.isfinite(value):
        raise RunDiverged(
            f"{type(generator).__name__}: the loss is {value} at step {state.step + 1} of {training.steps} with "
            f"lr={training.lr:g}: lower lr (a tenth), and look for extreme values in the examples"
        )
    for group in state.optimiser.param_groups:
        group["lr"] = training.lr * _rate(state.step, training)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    parameters: list[Tensor] = list(state.parameters.values())
    nn.utils.clip_grad_norm_(parameters, training.clip)
    state.optimiser.step()
    decay = min(training.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        # lerp: an entry that training does not change keeps its bits, as the embedding of an absent class must.
        torch._foreach_lerp_(list(state.average.values()), parameters, 1 - decay)
    return value


def _rate(step: int, training: Training) -> float:
    rise = min(1.0, (step + 1) / training.warmup) if training.warmup else 1.0
    return rise * 0.5 * (1 + math.cos(math.pi * step / training.steps))


def groups(generator: Generator, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's parameter groups: class and domain embeddings, biases and norms get no weight decay."""
    rows = generator.class_rows() | generator.domain_rows()
    decayed: list[Tensor] = []
    spared: list[Tensor] = []
    for name, parameter in generator.named_parameters():
        if parameter.requires_grad:
            (spared if name in rows or parameter.ndim < 2 else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def floor_check(
    counts: NDArray[np.int64], class_names: Sequence[str], warn: int = WARN, refuse: int = REFUSE, force: bool = False
) -> list[int]:
    """Find classes too small for a generator, which would memorise their few rows.

    Args:
        counts: [C] rows per class; a class without rows is ignored, nothing is generated for it.
        class_names: C names.
        warn: warn about classes with fewer rows.
        refuse: refuse classes with fewer rows, unless forced.
        force: continue anyway.

    Returns:
        Class ids below ``refuse`` that were forced: the caller must mark their samples and never export them.

    Raises:
        ConfigError: counts and names of different lengths, or refuse above warn.
        DataError: a class below ``refuse`` and not forced; all such are named.
    """
    sizes = np.asarray(counts)
    if sizes.shape != (len(class_names),) or refuse > warn:
        raise ConfigError(
            f"floor_check: counts {sizes.shape} for {len(class_names)} names, refuse={refuse}, warn={warn}: "
            f"give one count per class and refuse at most warn"
        )
    tiny = small_classes(sizes, refuse)
    if tiny and not force:
        raise DataError(
            f"too few rows to train a generator on: {_named(tiny, sizes, class_names)}; below {refuse} rows it "
            "copies them. Add rows, leave the class out, or force it (its samples may then never leave the site)"
        )
    if few := [c for c in small_classes(sizes, warn) if c not in tiny]:
        text = (
            f"few rows to train a generator on: {_named(few, sizes, class_names)}; below {warn} rows copies are likely"
        )
        log.warning("%s; look at the memorisation figures", text)
    return tiny


def _named(classes: Sequence[int], counts: NDArray[np.int64], names: Sequence[str]) -> str:
    return ", ".join(f"'{names[c]}' ({int(counts[c])})" for c in classes)
