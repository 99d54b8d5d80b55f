"""One image file to pixels: modes, sizes, orientation."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_images import image

from fedimb.data.sources.pictures import decode, resize


def saved(array, kind="PNG", **options):
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **options)
    return out.getvalue()


RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_come_back_as_they_were(kind):
    assert np.array_equal(decode(saved(RAMP, kind), "RGB", None), RAMP.transpose(2, 0, 1))
    assert np.array_equal(decode(saved(RAMP[..., 0], kind), "L", None), RAMP[None, ..., 0])


def test_grey_becomes_three_equal_channels_and_colour_its_luma():
    grey = decode(saved(RAMP[..., 0]), "RGB", None)
    assert grey.shape == (3, 4, 4)
    assert np.array_equal(grey[0], grey[2])
    colours = np.zeros((1, 3, 3), dtype=np.uint8)
    colours[0, range(3), range(3)] = 255
    assert decode(saved(colours), "L", None).ravel().tolist() == [76, 150, 29]  # 255 times .299, .587, .114


@pytest.mark.parametrize("mode", ["P", "1", "RGBA"])
def test_other_8_bit_modes_are_converted(mode):
    assert decode(image(255, mode=mode), "RGB", None).tolist() == np.full((3, 4, 4), 255).tolist()


def test_an_image_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top row is shown as the right column
    turned = decode(saved(RAMP[:2, :, 0], exif=exif), "L", None)
    assert np.array_equal(turned[0], np.rot90(RAMP[:2, :, 0], k=-1))


def test_whole_factors_average_blocks():
    blocks = np.kron(np.array([[0, 100], [200, 50]], dtype=np.uint8), np.ones((2, 2), dtype=np.uint8))
    assert resize(blocks[None], (2, 2)).tolist() == [[[0, 100], [200, 50]]]
    checkers = (np.indices((8, 8)).sum(0) % 2 * 200).astype(np.uint8)
    assert (resize(checkers[None], (2, 2)) == 100).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 255))
def test_any_size_to_any_size_keeps_a_flat_image_flat(h, w, height, width, value):
    out = resize(np.full((1, h, w), value, dtype=np.uint8), (height, width))
    assert out.shape == (1, height, width)
    assert (out == value).all()
