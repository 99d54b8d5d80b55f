"""The samplers that draw with replacement: uniform, class_balanced, sqrt_freq."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.training.samplers.class_balanced import ClassBalanced
from fedimb.training.samplers.draw import draw_by_class
from fedimb.training.samplers.sqrt_freq import SquareRootFrequency
from fedimb.training.samplers.uniform import Uniform

COUNTS = torch.tensor([900, 0, 100, 9])
SAMPLERS = [Uniform, ClassBalanced, SquareRootFrequency]


def share_of_classes(sampler, epochs=12):
    labels = torch.arange(4).repeat_interleave(COUNTS)
    generator = torch.Generator().manual_seed(0)
    seen = torch.cat([sampler.epoch(labels, generator) for _ in range(epochs)])
    return torch.bincount(labels[seen], minlength=4) / len(seen)


@pytest.mark.parametrize(
    ("sampler", "weights"),
    [(Uniform, [900, 0, 100, 9]), (ClassBalanced, [1, 0, 1, 1]), (SquareRootFrequency, [30, 0, 10, 3])],
)
def test_classes_come_as_often_as_promised(sampler, weights):
    wanted = torch.tensor(weights) / sum(weights)
    # 12,108 draws: a share's standard deviation is at most 0.0045
    assert torch.allclose(share_of_classes(sampler()), wanted, atol=0.02)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_rows_of_a_class_come_equally_often(sampler):
    labels, generator = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]), torch.Generator().manual_seed(1)
    seen = torch.cat([sampler().epoch(labels, generator) for _ in range(400)])
    assert torch.allclose(torch.bincount(seen, minlength=8) / len(seen), torch.full((8,), 1 / 8), atol=0.03)


@pytest.mark.parametrize("sampler", SAMPLERS)
@settings(max_examples=15, deadline=None)
@given(labels=st.lists(st.integers(0, 6), max_size=30), seed=st.integers(0, 99))
def test_an_epoch_is_as_long_as_the_data(sampler, labels, seed):
    labels = torch.tensor(labels, dtype=torch.int64)
    order = sampler().epoch(labels, torch.Generator().manual_seed(seed))
    assert order.dtype == torch.int64
    assert order.shape == labels.shape
    assert len(order) == 0 or 0 <= int(order.min()) <= int(order.max()) < len(labels)


def test_rows_belong_to_the_class_that_was_drawn():
    labels = torch.tensor([4, 2, 4, 2, 9])
    only_the_second = draw_by_class(labels, lambda n: torch.tensor([0.0, 1.0, 0.0]), torch.Generator().manual_seed(0))
    assert set(only_the_second.tolist()) == {0, 2}
