"""What a coreset rule reads of a client's rows, computed at the client: outputs, embeddings, a training's history."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedimb.clientapp.context import ClientContext
from fedimb.encoders.checks import unit_rows
from fedimb.encoders.embed import embed, open_encoder
from fedimb.selection.coresets.base import Candidates
from fedimb.training.forward import forward_batched
from fedimb.training.local import optimizer_of, train_locally

LOCAL = frozenset({"features", "logits", "embeddings", "history"})
"""Inputs of a rule that a client computes by itself; the others are of the whole federation."""


def candidates_of(
    view: str,
    needs: frozenset[str],
    context: ClientContext,
    *,
    encoder: Mapping[str, Any],
    epochs: int,
    given: Mapping[str, Tensor] | None = None,
) -> tuple[Candidates, int]:
    """The rows of a view as a rule's candidates, and the local steps spent on computing what it reads.

    Args:
        view: whose rows' classes are known.
        needs: the rule's.
        encoder: {name: ..., ...} of the kind encoder, for ``embeddings``.
        epochs: of the training that ``history`` observes.
        given: inputs that the server sent.
    """
    labels, classes = context.data.tensors(view)[1].cpu(), len(context.data.store.class_names)
    found, steps = dict(given or {}), 0
    if needs & {"features", "logits"}:
        features, logits = context.forward(view)
        found |= {"features": features.cpu(), "logits": logits.cpu()}
    if "embeddings" in needs:
        data, opened = context.data, open_encoder(encoder, context.data.store)
        if opened.uses_model:
            found["embeddings"] = unit_rows(context.forward(view)[0].cpu())
        else:
            found["embeddings"] = unit_rows(embed(opened, data.store, data.rows(view), data.scaling))
    if "history" in needs:
        found["history"], steps = _history(view, epochs, context)
    return Candidates(labels, classes, context.generator(), **found), steps


def _history(view: str, epochs: int, context: ClientContext) -> tuple[Tensor, int]:
    """Probabilities [epochs, n, C] after each epoch of training the received model on all rows of the view."""
    x, y = context.data.tensors(view)
    per_epoch = math.ceil(len(y) / context.config.local.batch_size)
    spec = context.spec().change(steps=per_epoch, objectives=())
    generator, optimizer = context.generator(device=x.device), optimizer_of(context.model, spec)
    found = []
    for _ in range(epochs):
        train_locally(context.model, x, y, spec, generator, optimizer=optimizer)
        found.append(forward_batched(context.model, x)[1].softmax(1).cpu())
    return torch.stack(found), per_epoch * epochs
