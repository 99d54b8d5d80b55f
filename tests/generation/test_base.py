"""What all generators share: the scale, batches of samples, ids that are replaced or refused."""

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError, DataError
from fedimb.generation.base import Generator
from fedimb.generation.examples import Examples, check_sizes, images_expected
from tests.generation.generator_cases import ids, rng


class Echo(Generator):
    """Samples are the ids it is given, scaled back: shows what reaches a network."""

    sample_batch = 4

    def draw_levels(self, n, generator):
        return torch.zeros(n)

    def _losses(self, z, y, d, levels, generator):
        return z.flatten(1).sum(1) + levels

    def _draw(self, y, d, generator):
        return (y + 10.0 * d).view(-1, *[1] * len(self.shape)).expand(-1, *self.shape)


def of(x, y=None, d=None):
    x = torch.as_tensor(x, dtype=torch.float32)
    null = torch.zeros(len(x), dtype=torch.int64)
    return Examples(x, null if y is None else y, null if d is None else d)


def scaled(model, low=-1000.0, high=1000.0, centre=0.0, spread=1.0):
    model.set_scale(*(torch.full_like(model.low, v) for v in (centre, spread, low, high)))
    return model


def test_a_tables_scale_is_numpys_mean_and_deviation_by_column():
    x = np.random.default_rng(0).normal([1e6, -3, 7], [5, 0.1, 0], (200, 3)).astype(np.float32)
    model = Echo(1, 1, (3,))
    assert not model.scaled
    model.fit_scale(of(x))
    assert model.scaled
    wide = x.astype(np.float64)
    assert np.allclose(model.centre, wide.mean(0))
    assert np.allclose(model.spread, [wide[:, 0].std(), wide[:, 1].std(), 1], rtol=1e-5)
    assert np.array_equal(model.low, x.min(0))
    assert np.array_equal(model.high, x.max(0))


def test_a_column_of_one_value_keeps_it_whatever_its_mean_rounds_to():
    model = Echo(1, 1, (1,))
    data = of(np.full((7, 1), 0.1))
    model.fit_scale(data)
    model.mark_seen(data)
    assert model.spread.item() == 1
    assert model.sample(ids(0), ids(0), rng()).item() == np.float32(0.1)


def test_images_go_from_their_range_to_minus_one_to_one():
    model = Echo(1, 1, (1, 1, 2))
    model.fit_scale(of([[[[0.0, 0.25]]], [[[1.0, 0.5]]]]))
    model.mark_seen(of([[[[0.0, 0.25]]]]))
    losses = model.losses_at(torch.tensor([[[[0.0, 0.0]]], [[[1.0, 0.5]]]]), ids(0, 0), ids(0, 0), 0.0, rng())
    assert losses.tolist() == [-2.0, 1.0]


def test_samples_are_made_in_batches_in_the_order_asked_and_clipped():
    model = scaled(Echo(5, 3, (2,)), low=1.0, high=12.0)
    model.mark_seen(of(torch.zeros(5, 2), torch.arange(5), ids(0, 1, 2, 0, 1)))
    y, d, counted = torch.arange(9) % 5, torch.arange(9) % 2, []
    made = model.sample(y, d, rng(), counted.append)
    assert counted == [4, 4, 1]
    assert made[:, 0].tolist() == (y + 10.0 * d).clamp(1, 12).tolist()


def test_levels_may_be_one_for_all_or_one_each():
    model = scaled(Echo(2, 1, (1,)))
    x, y = torch.zeros(3, 1), ids(0, 1, 2)  # 2 is "not said"
    assert model.losses_at(x, y, ids(0, 0, 1), 0.5, rng()).tolist() == [0.5] * 3
    each = torch.tensor([0.1, 0.2, 0.3])
    assert torch.equal(model.losses_at(x, y, ids(0, 0, 1), each, rng()), each)


def test_a_class_not_said_can_be_learned_from_but_not_asked_for():
    model = scaled(Echo(2, 1, (1,)))
    model.mark_seen(of(torch.zeros(2, 1), ids(0, 1)))
    with pytest.raises(DataError, match=r"class ids 2\.\.2: expected 0\.\.1"):
        model.sample(ids(2), ids(0), rng())
    with pytest.raises(DataError, match="int64"):
        model.sample(torch.zeros(1), ids(0), rng())
    with pytest.raises(DataError, match="one length"):
        model.sample(ids(0, 1), ids(0), rng())


def test_classes_and_domains_never_seen_together_are_told():
    model = scaled(Echo(2, 3, (1,)))
    model.mark_seen(of(torch.zeros(3, 1), ids(0, 0, 1), ids(0, 1, 0)))
    asked = ids(0, 0, 1, 1, 1, 1, 1), ids(0, 1, 0, 1, 2, 3, -1)
    assert model.composed(*asked).tolist() == [False, False, False, True, False, False, False]


def test_domains_not_seen_negative_or_beyond_are_not_said():
    model = scaled(Echo(1, 3, (1,)))
    model.mark_seen(of(torch.zeros(2, 1), ids(0, 0), ids(0, 2)))
    made = model.sample(ids(0, 0, 0, 0, 0), ids(0, 1, 2, -1, 99), rng())
    assert made[:, 0].tolist() == [0, 30, 20, 30, 30]


@pytest.mark.parametrize(
    "wrong", [{"spread": -1.0}, {"centre": float("nan")}, {"high": float("inf")}, {"low": 2.0, "high": 1.0}], ids=str
)
def test_a_scale_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(DataError, match="scale must be finite"):
        scaled(Echo(1, 1, (2,)), **wrong)


def test_sizes_and_shapes_are_checked():
    assert images_expected("flow", (4, 5)) == (1, 4, 5)
    assert images_expected("flow", (3, 4, 5)) == (3, 4, 5)
    for wrong in ((0, 1, (1,)), (1, 0, (1,)), (1, 1, ()), (1, 1, (3, 0))):
        with pytest.raises(ConfigError, match="at least 1"):
            check_sizes(*wrong)
