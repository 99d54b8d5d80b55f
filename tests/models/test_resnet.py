import pytest
import torch
from torch import nn

from fedimb.errors import ConfigError
from fedimb.models.resnet import resnet8, resnet18, resnet20, resnet34

NETS = {"resnet8": resnet8, "resnet20": resnet20, "resnet18": resnet18, "resnet34": resnet34}
NORMS = nn.GroupNorm | nn.modules.batchnorm._BatchNorm


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("net", "count"), [(resnet8, 78_042), (resnet20, 272_474)])
def test_parameter_counts_at_cifars_width_16(net, count):
    for norm in ("group", "batch"):
        assert parameters(net(10, (3, 32, 32), norm=norm)) == count


def test_the_published_resnets_have_11_7_and_21_8_million_parameters():
    assert parameters(resnet18(1000, (3, 224, 224))) == 11_689_512
    assert parameters(resnet34(1000, (3, 224, 224))) == 21_797_672


def test_the_resnet8_of_the_creff_line():
    """Width 64, BatchNorm: 1,227,594 parameters and 256 features for CIFAR-10, 4.92 MB with its buffers."""
    model = resnet8(10, (3, 32, 32), width=64, norm="batch")
    assert parameters(model) == 1_227_594
    assert model.head.in_features == 256
    assert sum(v.nbytes for v in model.state_dict().values()) / 1e6 == pytest.approx(4.92, abs=0.005)


@pytest.mark.parametrize("name", NETS)
def test_group_norm_leaves_no_batch_norm_anywhere(name):
    blocks = {"resnet8": 3, "resnet20": 9, "resnet18": 8, "resnet34": 16}[name]
    projections = {"resnet8": 2, "resnet20": 2, "resnet18": 3, "resnet34": 3}[name]
    for norm, kind in (("group", nn.GroupNorm), ("batch", nn.BatchNorm2d)):
        model = NETS[name](3, (3, 8, 8), width=8, norm=norm)
        assert [type(m) for m in model.modules() if isinstance(m, NORMS)] == [kind] * (1 + 2 * blocks + projections)
    assert not any(isinstance(m, NORMS) for m in NETS[name](3, (8, 8), width=8, norm="none").modules())


def test_the_stem_keeps_small_images_and_quarters_large_ones():
    sizes = {(3, 64, 64): 64, (3, 65, 65): 17, (1, 96, 20): 24, (8, 8): 8}
    for shape, high in sizes.items():
        model = resnet8(2, shape, width=4)
        channels = shape[0] if len(shape) == 3 else 1
        assert model.stem(torch.zeros(1, channels, *shape[-2:])).shape[2] == high


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (1, 5, 9), (3, 70, 66)])
def test_features_are_as_wide_as_the_last_stage(shape):
    for net, factor in ((resnet8, 4), (resnet18, 8)):
        model = net(3, shape, width=4)
        assert model.features(torch.randn(2, *shape)).shape == (2, 4 * factor)
        assert model.head.in_features == 4 * factor


def test_a_shortcut_carries_the_input_past_the_convolutions():
    model = resnet20(2, (8, 8), width=4)
    block = model.body[1]  # same shape in and out: identity
    with torch.no_grad():
        block.norm2.weight.zero_()
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_a_table_and_no_width_are_refused():
    with pytest.raises(ConfigError, match=r"model 'resnet20' reads images: .* this data has \(13,\)"):
        resnet20(2, (13,))
    with pytest.raises(ConfigError, match="width=0: give at least 1"):
        resnet8(2, (8, 8), width=0)
