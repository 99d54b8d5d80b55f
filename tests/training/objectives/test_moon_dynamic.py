"""HeroCrystal's contrastive term: which reference attracts in which round, and that it has a gradient."""

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from torch.nn.functional import cosine_similarity, cross_entropy

from fedimb.models.mlp import MLP
from fedimb.training.objectives.moon_dynamic import MoonDynamic

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def network(seed: int) -> MLP:
    torch.manual_seed(seed)
    return MLP(3, (5,), [4])


def term(direction: str, server_round: int):
    """The term and its gradient in the first layer in a round: the previous model is another than the received one."""
    state, previous, received, now = RecordDict(), network(1), network(2), network(3)
    first = MoonDynamic(0.7, 0.3, direction)
    first.receive(message(1), state)
    first.after(previous, 1)
    first.keep(state)
    own = MoonDynamic(0.7, 0.3, direction)
    own.receive(message(server_round), state)
    own.setup(received, list(received.parameters()))
    own.on_batch(X)
    features = now.features(X)
    loss = own.loss(now, features, now.head(features), Y)
    if loss is None:
        return None, None, None
    (gradient,) = torch.autograd.grad(loss, [now.body[1].weight], retain_graph=True)
    to_global, to_previous = (cosine_similarity(features, m.features(X), dim=1) / 0.3 for m in (received, previous))
    return loss, gradient, (to_global, to_previous)


def message(server_round: int) -> RecordDict:
    return RecordDict({"x.fedimb": ConfigRecord({"round": server_round, "model": "global", "resets": 0})})


@pytest.mark.parametrize(
    ("direction", "server_round", "positive"),
    [("moon", 2, 0), ("inverse", 2, 1), ("inverse", 5, 1), ("dynamic", 2, 1), ("dynamic", 3, 0), ("dynamic", 9, 0)],
)
def test_the_term_is_the_cross_entropy_to_the_positive_and_has_a_gradient(direction, server_round, positive):
    """The release never loads its references, so that both similarities are equal and the gradient is zero."""
    loss, gradient, similarities = term(direction, server_round)
    expected = 0.7 * cross_entropy(torch.stack(similarities, dim=1), torch.full((6,), positive))
    torch.testing.assert_close(loss, expected)
    assert gradient.norm() > 1e-3


def test_dynamic_is_nothing_in_the_first_round():
    assert term("dynamic", 1)[0] is None


def test_with_both_references_alike_it_would_be_constant():
    """What the release computes: mu log 2, whatever the features are."""
    own, both = MoonDynamic(0.5, 0.5, "moon"), network(1)
    own._models = both, both
    own.on_batch(X)
    features = network(3).features(X)
    loss = own.loss(both, features, features, Y)
    assert loss.item() == pytest.approx(0.5 * 0.693147, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, [features])
    assert gradient.abs().max() < 1e-7
