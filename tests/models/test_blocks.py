import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.models.blocks import check_width, conv_block


@pytest.mark.parametrize(("dims", "shape"), [(1, (4, 2, 9)), (2, (4, 2, 5, 6))])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_a_block_keeps_the_size_and_cuts_below_zero(dims, shape, kernel):
    out = torch.nn.Sequential(*conv_block(2, 8, kernel, "batch", dims))(torch.randn(shape))
    assert out.shape == (4, 8, *shape[2:])
    assert (out >= 0).all()
    assert (out > 0).any()


def test_a_net_without_filters_is_refused():
    check_width("net", 1)
    with pytest.raises(ConfigError, match="model 'net': width=0: give at least 1"):
        check_width("net", 0)
