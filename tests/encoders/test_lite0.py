"""EfficientNet-Lite0: stored features, the same bits in any batch, and what is refused."""

import sys

import pytest
import torch

from fedimb.encoders.lite0 import DEVIATION, MEAN, Lite0
from fedimb.errors import ConfigError
from tests.encoders.recipes import has_lite0

PICTURE = (torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32) % 97) / 97


@has_lite0
def test_features_of_a_picture_are_the_stored_ones():
    found = Lite0(input_shape=(3, 32, 32)).encode(PICTURE)[0]
    stored = [2.2146478, 0.9018652, 1.3750477, 2.0162473, -2.4886308, 3.7052188, 1.7925345, 1.0094815]
    torch.testing.assert_close(found[:8], torch.tensor(stored), rtol=1e-4, atol=1e-4)
    assert found.shape == (320,)
    assert found.sum().item() == pytest.approx(5.16359, abs=2e-3)
    assert "torchvision" not in sys.modules


@has_lite0
def test_a_row_has_the_same_bits_in_any_batch():
    encoder, x = Lite0(input_shape=(3, 32, 32)), torch.rand(18, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = encoder.encode(x)
    assert torch.equal(whole, encoder.encode(x))
    for size in (1, 7):
        assert torch.equal(whole, torch.cat([encoder.encode(part) for part in x.split(size)]))


@has_lite0
def test_grey_is_repeated_and_large_images_shrink():
    grey = PICTURE[:, 0]
    found = Lite0(size=64, input_shape=(32, 32)).encode(grey)
    colour = Lite0(size=64, input_shape=(3, 32, 32)).encode(grey[:, None].expand(-1, 3, -1, -1))
    assert torch.equal(found, colour)
    assert Lite0(layer="head", input_shape=(3, 40, 50)).encode(torch.zeros(1, 3, 40, 50)).shape == (1, 1280)
    assert Lite0(input_shape=(3, 32, 32)).encode(torch.zeros(0, 3, 32, 32)).shape == (0, 320)


def test_the_input_is_scaled_as_it_was_trained():
    """ImageNet's mean and deviation would cost accuracy without an error."""
    assert (MEAN, DEVIATION) == (127 / 255, 128 / 255)


@pytest.mark.parametrize(
    ("settings", "shape", "text"),
    [
        ({"size": 100}, (3, 32, 32), "size=100: give a multiple of 32"),
        ({"size": 0}, (3, 32, 32), "size=0: give a multiple"),
        ({"layer": "last"}, (3, 32, 32), "layer='last': give block or head"),
        ({}, (5,), "lite0"),
        ({}, (2, 8, 8), "2 channels"),
    ],
)
def test_what_does_not_fit_is_refused(settings, shape, text):
    with pytest.raises(ConfigError, match=text):
        Lite0(**settings, input_shape=shape)


def test_a_missing_package_is_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedimb\[encoders\]'") as caught:
        Lite0(input_shape=(3, 32, 32))
    assert "\n" not in str(caught.value)
