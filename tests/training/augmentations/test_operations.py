"""The batched operations against Pillow's on 8-bit images, which the papers used."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from fedimb.training.augmentations import operations as op
from fedimb.training.augmentations import policies

SIZE = (24, 30)  # height, width; more than twice 255 pixels, or equalize would do nothing


def pictures(n=6):
    """Random images, one dark, one of few levels, one constant: uint8 [n, h, w, 3]."""
    made = np.random.default_rng(0).integers(0, 256, (n, *SIZE, 3), dtype=np.uint8)
    made[1] //= 4
    made[2] = made[2] // 64 * 64
    made[3] = 77
    return made


def to_tensor(images):
    return torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2)


def as_bytes(x):
    return (x * 255).permute(0, 2, 3, 1).numpy()


def one(level):
    return torch.full((6,), float(level))


POINTWISE = {
    "brightness": (lambda im: ImageEnhance.Brightness(im).enhance(0.4), lambda x: op.brightness(x, one(0.4))),
    "brighter": (lambda im: ImageEnhance.Brightness(im).enhance(1.7), lambda x: op.brightness(x, one(1.7))),
    "contrast": (lambda im: ImageEnhance.Contrast(im).enhance(1.6), lambda x: op.contrast(x, one(1.6))),
    "saturation": (lambda im: ImageEnhance.Color(im).enhance(0.2), lambda x: op.saturation(x, one(0.2))),
    "sharpness": (lambda im: ImageEnhance.Sharpness(im).enhance(1.8), lambda x: op.sharpness(x, one(1.8))),
    "smooth": (lambda im: im.filter(ImageFilter.SMOOTH), op.smooth),
    "posterize": (lambda im: ImageOps.posterize(im, 3), lambda x: op.posterize(x, one(3))),
    "solarize": (lambda im: ImageOps.solarize(im, 100), lambda x: op.solarize(x, one(100 / 255))),
    "invert": (ImageOps.invert, op.invert),
    "autocontrast": (ImageOps.autocontrast, op.autocontrast),
    "equalize": (ImageOps.equalize, op.equalize),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_values_are_pillows_up_to_rounding(name):
    theirs, ours = POINTWISE[name]
    images = pictures()
    wanted = np.stack([np.asarray(theirs(Image.fromarray(image))) for image in images]).astype(float)
    found = as_bytes(ours(to_tensor(images)))
    exact = name in ("posterize", "solarize", "invert", "equalize")
    assert np.abs(found - wanted).max() <= (1e-3 if exact else 2.0)
    assert np.abs(found - wanted).mean() <= 0.6  # Pillow rounds, or cuts, to whole levels


MOVES = {
    "shear_x": (lambda im, v: im.transform(im.size, Image.Transform.AFFINE, (1, v, 0, 0, 1, 0)), op.shear_x, 0.3),
    "shear_y": (lambda im, v: im.transform(im.size, Image.Transform.AFFINE, (1, 0, 0, v, 1, 0)), op.shear_y, -0.3),
    "translate_x": (
        lambda im, v: im.transform(im.size, Image.Transform.AFFINE, (1, 0, v, 0, 1, 0)),
        lambda v: op.translate(v, torch.zeros_like(v)),
        4.0,
    ),
    "translate_y": (
        lambda im, v: im.transform(im.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, v)),
        lambda v: op.translate(torch.zeros_like(v), v),
        -3.0,
    ),
    "rotate": (lambda im, v: im.rotate(v), lambda v: op.rotate(v, *SIZE), 25.0),
}


@pytest.mark.parametrize("name", MOVES)
def test_pixels_move_as_in_pillow(name):
    theirs, matrix, level = MOVES[name]
    images = pictures()
    wanted = np.stack([np.asarray(theirs(Image.fromarray(image), level)) for image in images])
    found = as_bytes(op.affine(to_tensor(images), matrix(one(level)), 0.0)).round()
    apart = (found != wanted).any(-1).mean()  # a pixel exactly between two may be either
    assert apart <= 0.02, apart


def test_a_hue_is_turned_as_by_colorsys():
    images = to_tensor(pictures()[:1])
    found = op.shift_hue(images, torch.tensor([0.3]))[0].flatten(1).T.numpy()
    for pixel, ours in zip(images[0].flatten(1).T.tolist(), found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        assert ours == pytest.approx(colorsys.hsv_to_rgb((hue + 0.3) % 1, saturation, value), abs=1e-5)


def test_each_image_gets_its_own_operation_and_level():
    images = to_tensor(np.random.default_rng(1).integers(10, 200, (15, *SIZE, 3), dtype=np.uint8))
    code = torch.arange(15)
    table = policies.magnitudes(31, *SIZE)
    level = torch.tensor([table.get(name, [0.0] * 31)[20] for name in policies.NAMES])
    together = policies.apply(images, code, level, 0.5)
    for i, name in enumerate(policies.NAMES):
        alone = policies.apply(images[i : i + 1], code[i : i + 1], level[i : i + 1], 0.5)
        assert torch.equal(together[i : i + 1], alone)
        assert (name == "identity") == torch.equal(alone, images[i : i + 1])
    expected = {
        "color": op.saturation(images, 1 + level),
        "sharpness": op.sharpness(images, 1 + level),
        "equalize": op.equalize(images),
        "rotate": op.affine(images, op.rotate(level, *SIZE), 0.5),
    }
    for name, wanted in expected.items():
        at = policies.NAMES.index(name)
        assert torch.equal(together[at], wanted[at]), name


def test_magnitudes_are_those_of_the_papers():
    ten, thirty = policies.magnitudes(10, 32, 32), policies.magnitudes(31, 32, 32)
    assert ten["shear_x"][9] == pytest.approx(0.3)
    assert ten["translate_x"][9] == 14  # 150 of 331 pixels, of 32
    assert ten["posterize"] == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert ten["solarize"][5] == pytest.approx(4 / 9)
    assert thirty["rotate"][9] == pytest.approx(9.0)
    assert thirty["brightness"][30] == pytest.approx(0.9)
