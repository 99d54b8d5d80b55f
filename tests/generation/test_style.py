import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.errors import ConfigError, DataError
from fedimb.generation.style import Style, amplitude, describe_style, descriptor_bytes, recolour, swap_amplitude

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = 0.3 + 0.3 * torch.rand(40, 3, 8, 8, generator=GENERATOR, dtype=torch.float64)
GAIN, OFFSET = torch.tensor([0.8, 1.1, 0.5]).double(), torch.tensor([0.1, 0.0, 0.3]).double()


def cast(x):
    return x * GAIN.view(1, 3, 1, 1) + OFFSET.view(1, 3, 1, 1)


def test_a_style_is_the_mean_over_images_of_their_own_statistics():
    style = describe_style(IMAGES)
    own = [(image.mean(dim=(1, 2)), image.var(dim=(1, 2), unbiased=False)) for image in IMAGES]
    assert torch.allclose(style.mean, torch.stack([m for m, _ in own]).mean(0))
    assert torch.allclose(style.std, torch.stack([v for _, v in own]).mean(0).sqrt())
    assert style.rows == 40
    assert descriptor_bytes(3) == style.mean.numpy().nbytes + style.std.numpy().nbytes


def test_a_colour_cast_is_put_on_and_taken_off_exactly():
    plain, device = describe_style(IMAGES), describe_style(cast(IMAGES))
    assert torch.allclose(recolour(IMAGES, device, source=plain), cast(IMAGES))
    assert torch.allclose(recolour(cast(IMAGES), plain, source=device), IMAGES)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.3, 0.6), st.floats(0.01, 0.05))
def test_by_its_own_statistics_every_image_gets_the_style(mean, std):
    to = Style(torch.full((3,), mean).double(), torch.full((3,), std).double(), 32)
    made = recolour(IMAGES, to)
    assert torch.allclose(made.mean(dim=(2, 3)), torch.full((40, 3), mean).double())
    assert torch.allclose(made.var(dim=(2, 3), unbiased=False).sqrt(), torch.full((40, 3), std).double())


def test_type_and_range_are_kept_and_a_flat_channel_is_only_shifted():
    flat = torch.full((2, 3, 4, 4), 0.5)
    made = recolour(flat, Style(torch.tensor([0.2, 0.9, 7.0]).double(), torch.ones(3).double(), 32))
    assert made.dtype == torch.float32
    assert torch.allclose(made[0, :, 0, 0], torch.tensor([0.2, 0.9, 1.0]))
    assert recolour(flat[:0], describe_style(IMAGES)).shape == (0, 3, 4, 4)


def test_few_images_no_images_and_broken_images_are_refused():
    with pytest.raises(DataError, match=r"32 images.*there are 31"):
        describe_style(IMAGES[:31])
    with pytest.raises(DataError, match="32 images"):
        amplitude(IMAGES[:31])
    with pytest.raises(DataError, match="images"):
        describe_style(torch.rand(40, 12))
    broken = IMAGES.clone()
    broken[3, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        describe_style(broken)
    with pytest.raises(DataError, match="1 channels"):
        recolour(IMAGES[:, :1], describe_style(IMAGES))


def test_the_zero_frequency_is_the_mean():
    patch = amplitude(cast(IMAGES), beta=0.01)
    assert patch.shape == (3, 1, 1)
    assert torch.allclose(patch[:, 0, 0], 64 * cast(IMAGES).mean(dim=(0, 2, 3)))
    made = swap_amplitude(IMAGES, patch, beta=0.01)
    assert torch.allclose(made.mean(dim=(2, 3)), (patch[:, 0, 0] / 64).expand(40, 3))
    # All else stays: what differs from the image's mean.
    assert torch.allclose(
        made - made.mean(dim=(2, 3), keepdim=True), IMAGES - IMAGES.mean(dim=(2, 3), keepdim=True), atol=1e-9
    )


@pytest.mark.parametrize("shape", [(8, 8), (7, 9)])
def test_swapping_in_an_images_own_amplitude_changes_nothing(shape):
    image = IMAGES[:1, :, :1, :1] * torch.rand(1, 3, *shape, generator=GENERATOR, dtype=torch.float64)
    patch = amplitude(image, beta=0.25, least=1)
    assert patch.shape[-1] == 2 * int(0.25 * min(shape)) + 1
    assert torch.allclose(swap_amplitude(image, patch, beta=0.25), image, atol=1e-9)


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match="does not fit"):
        swap_amplitude(IMAGES, torch.ones(3, 3, 3), beta=0.01)
    with pytest.raises(ConfigError, match="beta"):
        amplitude(IMAGES, beta=0.5)
