import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.training.augmentations.flip import Flip

X, Y = torch.rand(400, 2, 3, 4), torch.zeros(400, dtype=torch.int64)


def flipped(x, p, seed=0):
    return Flip(p, input_shape=x.shape[1:])(x, Y, x, Y, torch.Generator().manual_seed(seed))


def test_left_and_right_change_places():
    assert torch.equal(flipped(X, 1.0), X.flip(3))
    assert torch.equal(flipped(X[:, 0], 1.0), X[:, 0].flip(2))
    assert torch.equal(flipped(X, 0.0), X)


def test_each_image_is_flipped_whole_or_not_half_of_them():
    out = flipped(X, 0.5)
    turned = (out == X.flip(3)).all(dim=(1, 2, 3))
    assert torch.equal(turned, ~(out == X).all(dim=(1, 2, 3)))
    assert 160 < int(turned.sum()) < 240  # 200, standard deviation 10


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_is_a_probability(p):
    with pytest.raises(ConfigError, match="augmentation 'flip': p="):
        Flip(p, input_shape=(3, 4))
