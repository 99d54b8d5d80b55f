import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError
from fedimb.training.samplers.class_balanced import ClassBalanced
from fedimb.training.samplers.mixed import Mixed, mixed_epoch
from fedimb.training.samplers.shuffle import Shuffle


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 20), st.integers(0, 20), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 2**32))
def test_real_rows_come_in_their_samplers_order_and_synthetic_ones_once_at_most(real, synthetic, share, seed):
    labels = torch.arange(real + synthetic) % 3
    order = mixed_epoch(Shuffle(), labels, real, share, seeded(seed))
    assert order[order < real].tolist() == Shuffle().epoch(labels[:real], seeded(seed)).tolist()
    made = order[order >= real]
    assert len(made.unique()) == len(made)
    assert (made < real + synthetic).all()
    if share != 0.3:
        assert len(made) == synthetic * share


def test_a_synthetic_row_is_visited_with_probability_lambda_anywhere_in_the_epoch():
    labels, generator = torch.zeros(50, dtype=torch.int64), seeded()
    epochs = [Mixed(Shuffle(), 30, 0.25).epoch(labels, generator) for _ in range(2000)]
    times = torch.bincount(torch.cat(epochs), minlength=50)
    assert (times[:30] == 2000).all()
    assert (times[30:] - 500).abs().max() < 100  # 5 standard deviations of 19.4
    place = torch.cat([torch.nonzero(e >= 30)[:, 0] / (len(e) - 1) for e in epochs])
    assert abs(float(place.mean()) - 0.5) < 0.02


def test_the_inner_sampler_never_sees_synthetic_labels():
    labels = torch.tensor([0, 0, 0, 0, 1, 1])  # class 1 is synthetic alone
    order = mixed_epoch(ClassBalanced(), labels, 4, 1.0, seeded())
    assert sorted(order.tolist())[-2:] == [4, 5]
    assert len(order) == 6


def test_without_synthetic_rows_nothing_is_drawn_besides():
    a, b = seeded(3), seeded(3)
    labels = torch.arange(9) % 2
    assert torch.equal(mixed_epoch(Shuffle(), labels, 9, 0.5, a), Shuffle().epoch(labels, b))
    assert torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))


def test_wrong_shares_and_sizes_are_refused():
    labels = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ConfigError, match="0 to 1"):
        mixed_epoch(Shuffle(), labels, 2, 1.5, seeded())
    with pytest.raises(ConfigError, match="real rows"):
        mixed_epoch(Shuffle(), labels, 4, 0.5, seeded())
