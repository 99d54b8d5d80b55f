"""Questions to ask of query rules: toy clients with a long tail."""

import pytest
import torch

from fedimb.selection.queries.base import Asked, Seen


def seen(labels, n_classes, width, seed, sure=2.0):
    """Rows around one centre per class, and the logits of a model that half knows them."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n_classes, width, generator=torch.Generator().manual_seed(99))
    features = centres[labels] + 0.5 * torch.randn(len(labels), width, generator=generator)
    logits = sure * features @ centres.T / width + torch.randn(len(labels), n_classes, generator=generator)
    return Seen(features, logits)


@pytest.fixture(scope="session")
def client():
    """Make a question: ``client(counts=[...], labelled=[...], budget=..., **fields of Asked)``.

    ``counts`` and ``labelled``: rows of each class in the pool and among the labelled rows.
    """

    def make(counts, labelled, budget, seed=0, width=8, draw=0, **fields):
        counts, labelled = torch.tensor(counts), torch.tensor(labelled)
        n_classes = len(counts)
        hidden = torch.arange(n_classes).repeat_interleave(counts)
        hidden = hidden[torch.randperm(len(hidden), generator=torch.Generator().manual_seed(seed))]
        labels = torch.arange(n_classes).repeat_interleave(labelled)
        pool = {w: seen(hidden, n_classes, width, 10 * seed + i) for i, w in enumerate(("global", "local"))}
        known = {w: seen(labels, n_classes, width, 10 * seed + 5 + i) for i, w in enumerate(("global", "local"))}
        given = {"hidden": hidden, "gamma": 0.6, "pool": pool, "labelled": known} | fields
        return Asked(budget, n_classes, labels, generator=torch.Generator().manual_seed(draw), **given)

    return make
