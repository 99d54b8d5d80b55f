"""Copies that were moved: shifted, turned, zoomed, mirrored, inverted images are found, fresh ones are not."""

import numpy as np
import pytest
from leaky import batch
from scipy import ndimage

from fedimb.privacy.audit.gate import GateSettings, audit
from fedimb.privacy.audit.moved import MovedSpace, views_of

SETTINGS = GateSettings(draws=10, bootstrap=2)


def pictures(rng, count, size=12):
    """Grey images [n, 1, size, size] of two blurred strokes each, in 0..1."""
    x = np.zeros((count, size, size))
    for image in x:
        for _ in range(3):
            (a, b), (c, d) = rng.integers(2, size - 2, size=(2, 2))
            for t in np.linspace(0, 1, 2 * size):
                image[round(a + t * (c - a)), round(b + t * (d - b))] = 1
    return ndimage.gaussian_filter(x, (0, 0.7, 0.7))[:, None].astype(np.float32)


def turned(x):
    return ndimage.rotate(x, 40, axes=(2, 3), reshape=False, order=1)


def zoomed(x):
    large = ndimage.zoom(x, (1, 1, 1.3, 1.3), order=1)
    start = (large.shape[2] - x.shape[2]) // 2
    return large[:, :, start:, start:][:, :, : x.shape[2], : x.shape[3]]


MOVES = {
    "rolled": lambda x: np.roll(x, 3, 3),
    "turned": turned,
    "zoomed": zoomed,
    "mirrored": lambda x: x[..., ::-1],
    "inverted": lambda x: 1 - x,
    "darker": lambda x: 0.3 * x,
}


@pytest.fixture(scope="module")
def real():
    rng = np.random.default_rng(0)
    return pictures(rng, 60), pictures(rng, 60), pictures(rng, 100)


def state(real, made, **changes):
    train, holdout, _ = real
    settings = GateSettings(**{**vars(SETTINGS), **changes})
    return audit(batch(made), batch(train), batch(holdout), settings, np.random.default_rng(1)).verdicts[0]


@pytest.mark.parametrize("move", MOVES)
def test_a_quarter_of_moved_copies_is_found_and_pixels_alone_do_not_see_them(real, move):
    made = real[2].copy()
    made[:25] = MOVES[move](real[0][:25]) + 0.01 * np.random.default_rng(2).normal(size=(25, 1, 12, 12))
    found = state(real, made)
    assert found.state == "fail", found
    assert all("(moved)" in reason for reason in found.reasons)
    assert state(real, made, moved=False).state != "fail"


def test_fresh_pictures_pass_and_moved_copies_would_have_been_found(real):
    found = state(real, real[2])
    assert (found.state, found.reasons) == ("pass", ())
    assert found.figures["power_moved"] >= 0.8
    assert found.figures["moved_near_copy_p"] > 0.01


def test_tables_are_compared_as_they_are():
    rng = np.random.default_rng(3)
    train, holdout, made = (batch(rng.normal(size=(n, 8))) for n in (50, 50, 60))
    one, two = (
        audit(made, train, holdout, GateSettings(**{**vars(SETTINGS), "moved": moved}), np.random.default_rng(1))
        for moved in (True, False)
    )
    assert one.facts() == two.facts()
    assert "power_moved" not in one.verdicts[0].figures


def test_a_patients_other_pictures_are_no_copies():
    rng = np.random.default_rng(4)
    x = pictures(rng, 20)
    train, holdout = batch(np.concatenate([x, turned(x)]), units=np.tile(np.arange(20), 2)), batch(pictures(rng, 20))
    units = np.tile(np.arange(20), 2), 20 + np.arange(20)
    space = MovedSpace(train, holdout, units, rng)
    _, _, controls = space.measure(holdout.x, np.arange(40), np.arange(20), rng)
    alone = MovedSpace(train, holdout, (np.arange(40), 40 + np.arange(20)), rng)
    _, _, doubled = alone.measure(holdout.x, np.arange(40), np.arange(20), rng)
    assert np.median(doubled[:40]) < 0.6 * np.median(controls[:40])


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (3, 64, 48)])
def test_views_have_length_one_and_the_first_is_the_image(shape):
    x = np.random.default_rng(5).random((2, *shape)).astype(np.float32)
    views = views_of(shape[-2:])
    seen = views(x)
    assert seen.shape[:2] == (2, views.count)
    assert seen.shape[2] <= 256
    np.testing.assert_allclose(np.linalg.norm(seen, axis=2), 1, atol=1e-5)
    np.testing.assert_array_equal(seen[:, 0], views.plain(x))
    assert not views(np.ones((1, *shape), np.float32)).any(), "an image of one colour resembles nothing"
