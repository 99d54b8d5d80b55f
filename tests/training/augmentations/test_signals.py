"""Augmentations of signals: how far each goes, and what it leaves alone."""

import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.training.augmentations.magnitude_scaling import MagnitudeScaling
from fedimb.training.augmentations.time_mask import TimeMask
from fedimb.training.augmentations.time_shift import TimeShift

X = torch.arange(1.0, 41.0).expand(2000, 3, 40) * torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1)


def augmented(augment, x=X):
    y = torch.zeros(len(x), dtype=torch.int64)
    return augment(x, y, x, y, torch.Generator().manual_seed(0))


def test_a_channel_of_a_window_has_one_factor_around_1():
    factor = augmented(MagnitudeScaling(0.2, input_shape=(3, 40))) / X
    torch.testing.assert_close(factor, factor[:, :, :1].expand_as(factor))
    one = factor[:, :, 0]
    assert abs(one.mean() - 1) < 0.01
    assert abs(one.std() - 0.2) < 0.01
    assert torch.corrcoef(one.T).fill_diagonal_(0).abs().max() < 0.08  # channels are drawn apart
    assert torch.equal(augmented(MagnitudeScaling(0, input_shape=(3, 40))), X)


def test_one_stretch_is_masked_in_all_channels_and_anywhere():
    made = augmented(TimeMask(0.25, fill=-7.0, input_shape=(3, 40)))
    masked = made == -7
    assert torch.equal(masked[:, 0], masked[:, 2])
    assert torch.equal(made[~masked], X[~masked])
    lengths = masked[:, 0].sum(1)
    assert torch.bincount(lengths).count_nonzero() == 11  # 0 to 10 samples, each about as often
    assert torch.bincount(lengths).max() < 1.5 * 2000 / 11
    starts = masked[:, 0].int().diff(dim=1, prepend=torch.zeros(2000, 1, dtype=torch.int32)) == 1
    assert starts.sum(1).max() == 1
    assert masked[:, 0, 0].any()
    assert masked[:, 0, -1].any()
    assert torch.equal(augmented(TimeMask(0, input_shape=(3, 40))), X)


def test_a_shift_moves_all_channels_and_repeats_the_edge():
    made = augmented(TimeShift(0.1, input_shape=(3, 40)))
    assert torch.equal(made[:, 1], 10 * made[:, 0])
    shifts = 20 - made[:, 0, 19].long()
    assert torch.bincount(shifts + 4).count_nonzero() == 9  # -4 to 4
    row = int((shifts == 3).nonzero()[0])
    assert made[row, 0].tolist() == [1.0] * 3 + [float(i) for i in range(1, 38)]
    row = int((shifts == -2).nonzero()[0])
    assert made[row, 0].tolist() == [float(i) for i in range(3, 41)] + [40.0] * 2


@pytest.mark.parametrize(
    ("make", "setting"),
    [(MagnitudeScaling, {"std": -1}), (TimeMask, {"fraction": 1.1}), (TimeShift, {"fraction": -0.1})],
)
def test_a_setting_out_of_range_is_refused(make, setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        make(**setting, input_shape=(3, 40))
