import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fedimb.errors import ConfigError
from fedimb.training.augmentations.pad_crop import PadCrop


@settings(max_examples=15, deadline=None)
@given(
    shape=st.sampled_from([(4, 5), (1, 3, 3), (3, 2, 6)]),
    pad=st.integers(0, 6),
    b=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_image_is_one_crop_of_its_padded_self(shape, pad, b, seed):
    x = torch.rand(b, *shape) + 1
    y = torch.zeros(b, dtype=torch.int64)
    out = PadCrop(pad, input_shape=shape)(x, y, x, y, torch.Generator().manual_seed(seed))
    padded, (high, wide) = F.pad(x, (pad,) * 4), shape[-2:]
    for image, cropped in zip(padded, out, strict=True):
        crops = [
            image[..., top : top + high, left : left + wide]
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
        ]
        assert any(torch.equal(crop, cropped) for crop in crops)


def test_every_shift_comes_as_often():
    x = torch.zeros(900, 3, 3)
    x[:, 1, 1] = 1
    y = torch.zeros(900, dtype=torch.int64)
    out = PadCrop(1, input_shape=(3, 3))(x, y, x, y, torch.Generator().manual_seed(0))
    assert torch.equal(out.sum(dim=(1, 2)), torch.ones(900))  # the bright pixel never leaves
    assert (out.sum(0) > 60).all()  # 100 at each of 9 places, standard deviation 9.4
    assert (out.sum(0) < 140).all()


def test_no_pad_changes_nothing_and_a_negative_one_is_refused():
    x, y = torch.rand(4, 2, 3, 3), torch.zeros(4, dtype=torch.int64)
    assert torch.equal(PadCrop(0, input_shape=(2, 3, 3))(x, y, x, y, torch.Generator()), x)
    with pytest.raises(ConfigError, match="pad=-1: give a finite number of at least 0"):
        PadCrop(-1, input_shape=(3, 3))
