import pytest
import torch
from torch import nn

from fedimb.errors import ConfigError
from fedimb.models.cnn4conv import CNN4Conv


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("shape", "features"),
    [((3, 32, 32), 256), ((1, 28, 28), 64), ((8, 8), 64), ((3, 5, 40), 64 * 10), ((1, 1), 64)],
)
def test_feature_width_follows_the_published_net_and_no_side_vanishes(shape, features):
    model = CNN4Conv(n_classes=10, input_shape=shape)
    assert model.head.in_features == features
    assert model.features(torch.randn(2, *shape)).shape == (2, features)


def test_parameter_count_and_a_head_bias_of_zero():
    model = CNN4Conv(n_classes=10, input_shape=(3, 32, 32))
    convolutions = 64 * (3 * 9 + 1) + 3 * 64 * (64 * 9 + 1)
    assert parameters(model) == convolutions + 4 * 2 * 64 + 256 * 10 + 10 == 115_658
    assert torch.equal(model.head.bias, torch.zeros(10))
    assert parameters(CNN4Conv(10, (3, 32, 32), norm="none")) == 115_658 - 4 * 2 * 64


def test_norm_is_the_chosen_one_everywhere():
    for norm, kind in (("group", nn.GroupNorm), ("batch", nn.BatchNorm2d)):
        found = [m for m in CNN4Conv(2, (8, 8), 8, norm).modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm2d)]
        assert [type(m) for m in found] == [kind] * 4


def test_the_order_of_channels_in_memory_changes_nothing():
    torch.manual_seed(0)
    model, x = CNN4Conv(3, (2, 16, 16), 8), torch.randn(3, 2, 16, 16)
    assert torch.allclose(model.features(x), model.body(x), atol=1e-5)


def test_a_table_and_no_width_are_refused():
    with pytest.raises(ConfigError, match=r"model 'cnn4conv' reads images: .* this data has \(13,\); use a model such"):
        CNN4Conv(2, (13,))
    with pytest.raises(ConfigError, match="width=0: give at least 1"):
        CNN4Conv(2, (8, 8), width=0)
