"""FedRep's alternation: what is fixed stays to the bit, and the rest trains as if it were alone."""

import copy

import pytest
import torch

from fedimb.models.mlp import MLP
from fedimb.training.local import train_locally
from fedimb.training.losses.ce import CrossEntropy
from fedimb.training.objectives.alternate import Alternate
from fedimb.training.samplers.shuffle import Shuffle
from fedimb.training.spec import TrainSpec

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 3


def trained(model, steps, *objectives):
    spec = TrainSpec("train", steps, 12, "sgd", 0.3, 0.9, 0.01, CrossEntropy(), Shuffle(), objectives)
    train_locally(model, X, Y, spec, torch.Generator().manual_seed(0))
    return dict(model.named_parameters())


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP(3, (4,), [5])


@pytest.mark.parametrize(("head_steps", "fixed"), [(6, "body"), (0, "head")])
def test_one_part_alone_is_training_with_the_other_frozen(head_steps, fixed):
    """Momentum and weight decay too: the reference has the fixed part without gradients."""
    start, reference = network(), network()
    for name, parameter in reference.named_parameters():
        parameter.requires_grad_(not name.startswith(fixed))
    expected = trained(reference, 6)
    found = trained(copy.deepcopy(start), 6, Alternate(head_steps))
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])
        if name.startswith(fixed):
            assert torch.equal(value, dict(start.named_parameters())[name])


def test_the_head_is_first_and_the_body_after_it():
    start = network()
    first = trained(copy.deepcopy(start), 2, Alternate(2))
    both = trained(copy.deepcopy(start), 5, Alternate(2))
    for part in ("head.weight", "head.bias"):  # of the first two steps, and none after
        assert torch.equal(both[part], first[part])
    assert not torch.equal(both["body.1.weight"], first["body.1.weight"])
