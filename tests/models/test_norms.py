import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedimb.errors import ConfigError
from fedimb.models.blocks import build_norm, groups_of


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 600))
def test_groups_divide_the_channels_and_hold_several(channels):
    groups = groups_of(channels)
    assert channels % groups == 0
    assert groups <= 32
    assert groups == 1 or channels // groups >= 8


def test_usual_widths():
    assert [groups_of(c) for c in (1, 3, 8, 16, 32, 64, 128, 512)] == [1, 1, 1, 2, 4, 8, 16, 32]


def test_kinds():
    assert isinstance(build_norm("group", 16), nn.GroupNorm)
    assert isinstance(build_norm("batch", 16), nn.BatchNorm2d)
    assert isinstance(build_norm("batch", 16, dims=1), nn.BatchNorm1d)
    x = torch.randn(2, 16, 3)
    assert torch.equal(build_norm("none", 16)(x), x)
    assert build_norm("group", 16, dims=1)(x).shape == x.shape
    with pytest.raises(ConfigError, match="give group, batch or none"):
        build_norm("layer", 16)  # type: ignore[arg-type]
