import io

import numpy as np
import pytest

from fedimb.annotation.thumbnails import LARGEST, SMALLEST, check_pictures, pixels, png
from fedimb.errors import DataError

Image = pytest.importorskip("PIL.Image")


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_small_pictures_grow_in_whole_multiples_and_keep_their_values():
    x = np.arange(64, dtype=np.uint8).reshape(1, 8, 8) // 4
    shown = opened(png(x, 1 / 16))
    assert shown.shape == (SMALLEST, SMALLEST)
    assert shown[::32, ::32].tolist() == np.rint(x[0] / 16 * 255).astype(int).tolist()
    assert len(np.unique(shown)) == 16


def test_large_pictures_shrink_and_keep_their_proportions():
    assert opened(png(np.zeros((1, 600, 3000), np.uint8), 1 / 255)).shape == (205, LARGEST)
    assert opened(png(np.zeros((1, 300, 400), np.uint8), 1 / 255)).shape == (300, 400)


def test_colours_stay_in_their_places():
    x = np.zeros((3, 2, 4), np.uint8)
    x[0, 0, 1], x[2, 1, 3] = 255, 128
    shown = pixels(x, 1 / 255)
    assert shown.shape == (2, 4, 3)
    assert shown[0, 1].tolist() == [255, 0, 0]
    assert shown[1, 3].tolist() == [0, 0, 128]


def test_values_beyond_the_unit_range_are_stretched():
    x = np.array([[[-2.0, 0.0], [2.0, 6.0]]], np.float32)
    assert pixels(x, 1.0).tolist() == [[0, 64], [128, 255]]
    assert pixels(np.full((1, 2, 2), 9.0, np.float32), 1.0).tolist() == [[0, 0], [0, 0]]
    assert pixels(np.full((1, 1, 1), 0.5, np.float32), 1.0).tolist() == [[128]]


def test_a_png_tells_nothing_but_its_pixels():
    assert Image.open(io.BytesIO(png(np.zeros((1, 8, 8), np.uint8), 1.0))).info == {}


@pytest.mark.parametrize("shape", [(8,), (2, 8, 8), (4, 8, 8), (1, 9), (1, 3, 8, 8)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(DataError, match="not rows of shape"):
        check_pictures(shape)


def test_pictures_are_accepted():
    check_pictures((1, 8, 8))
    check_pictures((3, 8, 8))
