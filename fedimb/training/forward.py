"""Forward passes without gradients: one model, the rows of one client or of many.

A row's result does not depend on the rows it is computed with, so an engine may batch clients in any way: every
client's rows are split into separate blocks, of a fixed size if products are batched.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedimb.models.base import Classifier
from fedimb.models.stacking import DenseStack, dense_layers

BLOCK = 64
"""Rows per block, for images (a convolution on CPU is several times faster than on 1,000 at once) and for a dense
model's batched products."""
_ROWS = 1024
_WEIGHTS = 4 * 1024**2  # bytes of weights repeated for one batched product

Outputs = tuple[Tensor, Tensor]
"""features [n, d] and logits [n, C], float32."""


def forward_batched(model: Classifier, x: Tensor) -> Outputs:
    """Inputs [n, *shape] float32 -> (features [n, d], logits [n, C]); the model is switched to evaluation mode."""
    return forward_many(model, [x])[0]


@torch.no_grad()
def forward_many(model: Classifier, inputs: Sequence[Tensor]) -> list[Outputs]:
    """`forward_batched` for every client's inputs; each result is bit-identical to that of a separate call."""
    model.eval()
    if (layers := dense_layers(model)) is not None and any(len(x) for x in inputs):
        return _dense(model, layers, inputs)
    return [_alone(model, x) for x in inputs]


def _alone(model: Classifier, x: Tensor) -> Outputs:
    if len(x) == 0:  # not every layer accepts an empty batch
        return x.new_zeros(0, model.head.in_features), x.new_zeros(0, model.head.out_features)
    parts = []
    for chunk in x.split(BLOCK if x.dim() > 2 else _ROWS):
        features = model.features(chunk)
        parts.append((features, model.head(features)))
    return torch.cat([f for f, _ in parts]), torch.cat([z for _, z in parts])


def _dense(model: Classifier, layers: Sequence[str], inputs: Sequence[Tensor]) -> list[Outputs]:
    """All clients' blocks as one batch of products with the same weights."""
    blocks = [-(-len(x) // BLOCK) for x in inputs]
    shape = inputs[0].shape[1:]
    rows = inputs[0].new_zeros(sum(blocks) * BLOCK, *shape)
    starts, at = [], 0
    for x, count in zip(inputs, blocks, strict=True):
        rows[at : at + len(x)] = x
        starts.append(at)
        at += count * BLOCK
    weights = {name: p.detach() for name, p in model.named_parameters()}
    together = max(1, _WEIGHTS // sum(p.nbytes for p in weights.values()))
    parts: list[Outputs] = []
    for chunk in rows.view(-1, BLOCK, *shape).split(together):
        repeated = {name: p.expand(len(chunk), *p.shape) for name, p in weights.items()}
        nets = DenseStack(layers, repeated, BLOCK)
        logits = nets.logits(chunk)
        parts.append((nets.features, logits))
    features, logits = (torch.cat(kind).flatten(0, 1) for kind in zip(*parts, strict=True))
    return [(features[a : a + len(x)], logits[a : a + len(x)]) for a, x in zip(starts, inputs, strict=True)]
