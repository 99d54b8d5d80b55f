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


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, stride=2, padding=1)], ids=["cnn4conv", "stem of a resnet"]
)
def test_relu_after_the_pool_has_the_bits_of_relu_before_it(pool, layout):
    """Values and gradients, also where values are equal, zero or all below zero."""
    drawn = torch.Generator().manual_seed(0)
    rounded = torch.randn(4, 8, 12, 12, generator=drawn).mul(2).round().div(2)
    slope = torch.randn(4, 8, 6, 6, generator=drawn)
    found = []
    for layers in ((nn.ReLU(), pool), (pool, nn.ReLU())):
        x = rounded.clone(memory_format=layout).requires_grad_()
        out = nn.Sequential(*layers)(x)
        (gradient,) = torch.autograd.grad((out * slope).sum(), x)
        found.append((out.detach(), gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert (found[0][1] == 0).any()
    assert (rounded == 0).any()


def test_the_net_is_the_published_one_bit_by_bit():
    """Convolution, norm, ReLU, pool, as in the paper, from the layers of ours."""
    torch.manual_seed(0)
    model, x = CNN4Conv(3, (3, 16, 16), 8), torch.randn(5, 3, 16, 16)
    convolutions = [m for m in model.body if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.body if isinstance(m, nn.GroupNorm)]
    published: list[nn.Module] = []
    for convolution, norm in zip(convolutions, norms, strict=True):
        published += [convolution, norm, nn.ReLU(), nn.MaxPool2d(2)]
    body = nn.Sequential(*published, nn.Flatten())
    images = x.contiguous(memory_format=torch.channels_last)
    parameters = [*model.body.parameters()]
    results = []
    for features in (model.features(x), body(images)):
        gradients = torch.autograd.grad(features.square().sum(), parameters)
        results.append([features.detach(), *gradients])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    names = [name for name, _ in model.named_parameters()]
    assert names[:4] == ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"]
