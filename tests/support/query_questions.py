"""Questions to query rules about rows whose place is known."""

from dataclasses import replace

import torch

from fedimb.selection.queries.base import ModelOutputs


def islands(sizes, width=8, spread=0.01, seed=0):
    """Rows in tight groups far apart, and the group of each."""
    group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    noise = spread * torch.randn(len(group), width, generator=torch.Generator().manual_seed(seed))
    return torch.eye(width)[group] * 5 + noise, group


def at(asked, features, logits=None, labelled=None):
    """The question with these pool (and labelled) features under both models."""
    logits = torch.zeros(len(features), asked.n_classes) if logits is None else logits
    fields = {"pool": {w: ModelOutputs(features, logits) for w in ("global", "local")}}
    if labelled is not None:
        shown = ModelOutputs(labelled, torch.zeros(len(labelled), asked.n_classes))
        fields["labelled"] = dict.fromkeys(("global", "local"), shown)
    return replace(asked, **fields)
