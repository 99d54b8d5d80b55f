import pytest
import torch

from fedimb.encoders.random_conv import RandomConv
from fedimb.errors import ConfigError


def by_hand(encoder, image):
    """The same arithmetic with loops over unfolded patches, float64."""
    level = image.double()
    level = (level - level.mean()) / (level.std(correction=0) + 1e-5)
    cells = []
    for weight, bias in (encoder._first, encoder._second):
        patches = torch.nn.functional.unfold(level[None], 3, padding=1)[0]  # [9 c, h w]
        out = (weight.double().flatten(1) @ patches + bias.double()[:, None]).clamp(min=0)
        c, side = len(out), level.shape[-1]
        level = out.view(c, side // 2, 2, side // 2, 2).mean((2, 4))
        part = level.shape[-1] // encoder.grid
        cells.append(level.view(c, encoder.grid, part, encoder.grid, part).mean((2, 4)).flatten())
    vector = torch.cat(cells)
    return (vector / vector.norm()).float()


def test_it_is_two_layers_of_convolution_pooled_over_a_grid():
    encoder = RandomConv(5, 2, seed=1, input_shape=(3, 16, 16))
    images = torch.rand(3, 3, 16, 16)
    found = encoder.encode(images)
    assert found.shape == (3, 3 * 5 * 4)
    assert torch.allclose(found, torch.stack([by_hand(encoder, image) for image in images]), atol=1e-5)


def test_brightness_and_contrast_of_an_image_do_not_count():
    encoder, image = RandomConv(input_shape=(8, 8)), torch.rand(1, 8, 8)
    assert torch.allclose(encoder.encode(image), encoder.encode(image * 0.5 + 0.2), atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 5, 5), (3, 7, 30), (4, 8, 8)])
def test_any_image_has_a_direction_even_one_of_one_colour(shape):
    images = torch.stack([torch.zeros(shape), torch.ones(shape), torch.rand(shape)])
    found = RandomConv(2, 4, input_shape=shape).encode(images)
    assert torch.allclose(found.norm(dim=1), torch.ones(3))


def test_seeds_and_sizes_are_different_encoders():
    images = torch.rand(2, 3, 8, 8)
    made = [RandomConv(4, 2, seed=s, input_shape=(3, 8, 8)) for s in (0, 1)]
    assert not torch.allclose(made[0].encode(images), made[1].encode(images), atol=1e-3)
    others = [RandomConv(5, 2, input_shape=(3, 8, 8)), RandomConv(4, 3, input_shape=(3, 8, 8))]
    assert len({encoder.fingerprint() for encoder in [*made, *others]}) == 4


@pytest.mark.parametrize(("key", "value"), [("width", 0), ("grid", 0), ("seed", -1)])
def test_sizes_out_of_range(key, value):
    with pytest.raises(ConfigError, match=f"{key}={value}: give at least"):
        RandomConv(**{key: value}, input_shape=(8, 8))
