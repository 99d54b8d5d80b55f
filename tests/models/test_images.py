import pytest
import torch

from fedimb.errors import ConfigError
from fedimb.models.images import as_images, image_shape


def test_grey_images_have_one_channel():
    assert image_shape("model 'm' reads", (8, 9)) == (1, 8, 9)
    assert image_shape("model 'm' reads", (3, 8, 9)) == (3, 8, 9)
    x = torch.randn(2, 8, 9)
    assert torch.equal(as_images(x), x[:, None])


def test_channels_come_last_in_memory_only():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(as_images(x), x)
    assert as_images(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(12,), (), (2, 3, 4, 5)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ConfigError, match=r"model 'm' reads images: expected an input shape \(height, width\) or"):
        image_shape("model 'm' reads", shape)
