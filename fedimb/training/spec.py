"""TrainSpec: local training as data. A method's client side returns one and has no training loop of its own."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fedimb.schema import Precision
from fedimb.training.objectives.base import LocalObjective


class Sampler(Protocol):
    """Order of the rows within one epoch."""

    def epoch(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Labels [n] int64 -> positions int64; may be shorter or longer than n and repeat rows.

        If rows have several labels, their primary classes are passed (`fedimb.data.labels`), or the targets [n, C] to a
        sampler with ``needs_targets = True``.
        """
        ...


class Mixed(NamedTuple):
    """What an augmentation returns that mixes rows (flag ``mixes``): its loss is mixed as its inputs are.

    Attributes:
        inputs: [b, *shape].
        partners: [b] int64, positions in the batch whose labels count too.
        share: tensor without dimensions, in [0, 1]: the weight of the row's own label; the partner's is 1 - share.
    """

    inputs: Tensor
    partners: Tensor
    share: Tensor


class Augmentation(Protocol):
    """Changes the inputs of a training batch; views, queries and evaluation use the original rows."""

    def __call__(
        self, x: Tensor, labels: Tensor, rows: Tensor, labels_of_rows: Tensor, generator: torch.Generator
    ) -> Tensor | Mixed:
        """Batch x [b, *shape] with its labels [b] -> new inputs of the same shape and dtype, or `Mixed`.

        Args:
            labels: the primary class if rows have several; an augmentation for such data is registered with
                ``tasks=("multiclass", "multilabel")`` and must keep every label valid.
            rows, labels_of_rows: all of the client's rows in the view, for augmentations that mix samples.
            generator: every draw comes from it.
        """
        ...


@dataclass(frozen=True)
class TrainSpec:
    """One client's local training in one round.

    Attributes:
        view: name of the view trained on (`fedimb.data.views`).
        steps: optimiser steps; by default epochs x ceil(n_original / batch_size), the same for every method.
        batch_size: rows per step; the last batch of an epoch may be shorter.
        optimizer: ``sgd`` or ``adam``.
        lr, momentum, weight_decay: its settings (weight decay is L2 on the gradient).
        loss: module called as ``loss(logits, labels)`` -> scalar, labels [n] int64 or, if rows have several, targets
            [n, C] float32; a loss with ``needs_features = True`` also gets ``features=``. Its parameters, if any, are
            trained locally and stay local.
        sampler: order of the rows.
        objectives: local objectives, applied in order.
        augmentations: applied to each batch, in order.
        nesterov: Nesterov's momentum, of ``sgd``.
        decay_exempt: kinds of parameters without weight decay: ``norm`` (of normalisation layers), ``bias``.
        max_grad_norm: a longer gradient, of all trained parameters together, is cut to this L2 norm; None: no bound.
        precision: arithmetic of features and head, ``float32`` or ``bf16`` (`fedimb.training.precision`).
        extra: additional training rows, appended to those of the view, (x [m, *shape] float32, y [m] int64): for
            example synthetic rows of a method. Never used for evaluation; the sampler gets the labels of both.
        labels: classes [n] int64 to train the view's rows as, instead of their own; class counts, validation and scores
            keep those. None: their own.
        taken: optimiser steps that a method has already taken in this round, for example on other rows; they are
            reported with ``steps``.
    """

    view: str
    steps: int
    batch_size: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    loss: nn.Module
    sampler: Sampler
    objectives: tuple[LocalObjective, ...] = ()
    augmentations: tuple[Augmentation, ...] = ()
    extra: tuple[Tensor, Tensor] | None = None
    nesterov: bool = False
    decay_exempt: tuple[str, ...] = ()
    max_grad_norm: float | None = None
    precision: Precision = "float32"
    labels: Tensor | None = None
    taken: int = 0

    def change(self, **changes: Any) -> "TrainSpec":
        """A copy with some fields changed: what a method's client side usually returns."""
        if "terms" in changes:
            warnings.warn("TrainSpec.terms is called objectives now: use that", DeprecationWarning, stacklevel=2)
            changes["objectives"] = changes.pop("terms")
        return replace(self, **changes)

    @property
    def terms(self) -> tuple[LocalObjective, ...]:
        """``objectives`` under its old name, which goes with the next release."""
        warnings.warn("TrainSpec.terms is called objectives now: use that", DeprecationWarning, stacklevel=2)
        return self.objectives
