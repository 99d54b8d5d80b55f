"""Ready-made examples: what is read, that nothing is handed out twice, and what is said when too few are there."""

import math

import numpy as np
import pytest
import torch

from fedimb.errors import ConfigError, DataError
from fedimb.generation.examples import Examples
from fedimb.generation.training import Training, train_generator
from fedimb.registry import build
from tests.generation.generator_cases import ids, rng

SHAPE = (1, 2, 3)


def opened(path, n_classes=2, n_domains=2, shape=SHAPE, names=None):
    given = {"n_classes": n_classes, "n_domains": n_domains, "shape": shape, "class_names": names, "seed": 0}
    return build("generator", "external_dir", given, path=str(path))


def archive(folder, **changes):
    """Row k is all k / 100; classes 0 0 0 1 1, domains 0 0 1 0 1."""
    x = np.broadcast_to(np.arange(5.0)[:, None, None, None] / 100, (5, *SHAPE)).astype(np.float32)
    arrays = {"x": x, "y": np.array([0, 0, 0, 1, 1]), "d": np.array([0, 0, 1, 0, 1], np.uint8)} | changes
    np.savez(folder / "made.npz", **{key: value for key, value in arrays.items() if value is not None})
    return folder / "made.npz"


def which(made):
    return (made[:, 0, 0, 0] * 100).round().int().tolist()


def picture(file, value, size=(3, 2), mode="L"):
    image = pytest.importorskip("PIL.Image")
    file.parent.mkdir(parents=True, exist_ok=True)
    image.new(mode, size, value).save(file)


def test_rows_come_of_their_class_and_domain_each_once(tmp_path):
    made = opened(archive(tmp_path))
    assert sorted(which(made.sample(ids(0, 0), ids(0, 0), rng()))) == [0, 1]
    assert which(made.sample(ids(1, 0, 1), ids(1, 1, 0), rng())) == [4, 2, 3]
    firsts = {which(made.sample(ids(0), ids(0), rng(seed)))[0] for seed in range(20)}
    assert firsts == {0, 1}, "drawn, not always the first"
    assert torch.equal(made.sample(ids(0), ids(0), rng(3)), made.sample(ids(0), ids(0), rng(3)))
    assert made.sample(ids(), ids(), rng()).shape == (0, *SHAPE)


def test_a_domain_not_held_takes_what_is_left_of_the_class(tmp_path):
    made = opened(archive(tmp_path), n_domains=3)
    picked = which(made.sample(ids(0, 0, 0), ids(2, 0, 0), rng()))
    assert picked[0] == 2
    assert sorted(picked[1:]) == [0, 1]


def test_without_domains_every_row_of_the_class_serves_any(tmp_path):
    made = opened(archive(tmp_path, d=None))
    assert sorted(which(made.sample(ids(0, 0, 0), ids(0, 1, 1), rng()))) == [0, 1, 2]


def test_too_few_rows_are_named_cell_by_cell(tmp_path):
    made = opened(archive(tmp_path), n_domains=3, names=("mild", "severe"))
    says = (
        r"too few examples: class 'mild' of domain 1: 2 requested, 1 available; "
        r"class 'severe': 3 requested, 2 available"
    )
    with pytest.raises(DataError, match=says):
        made.sample(ids(0, 0, 1, 1, 1), ids(1, 1, 2, 2, 2), rng())
    with pytest.raises(DataError, match="class ids"):
        made.sample(ids(2), ids(0), rng())


def test_training_does_nothing_and_there_is_no_loss(tmp_path):
    made = opened(archive(tmp_path))
    data = Examples(torch.rand(2, *SHAPE), ids(0, 1), ids(0, 0))
    assert math.isnan(train_generator(made, data, Training(), 0))
    with pytest.raises(ConfigError, match="ready-made rows"):
        made.losses(data.x, data.y, data.d, rng())


def test_grey_levels_are_brought_to_0_to_1(tmp_path):
    x = np.full((5, *SHAPE), 51, np.uint8)
    assert torch.allclose(opened(archive(tmp_path, x=x)).sample(ids(0), ids(0), rng()), torch.tensor(0.2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x": None}, "lacks x"),
        ({"y": None, "x": None}, "lacks x and y"),
        ({"y": np.array([0.0, 0, 0, 1, 1])}, "y is float64"),
        ({"y": np.array([0, 0, 0, 1, 2])}, r"class ids 0\.\.2: expected 0\.\.1"),
        ({"y": np.array([0])}, "one class id"),
        ({"d": np.array([0, 0, 0, 0, 2])}, r"domain ids outside 0\.\.1"),
        ({"x": np.zeros((5, 3, 2, 3), np.float32)}, r"shape \(3, 2, 3\), the generator makes \(1, 2, 3\)"),
        ({"x": np.full((5, *SHAPE), np.nan, np.float32)}, "example 0"),
    ],
    ids=["no_x", "no_xy", "float_y", "class", "lengths", "domain", "channels", "nan"],
)
def test_an_archive_that_does_not_fit_is_named(tmp_path, change, says):
    with pytest.raises(DataError, match=rf"made\.npz.*{says}"):
        opened(archive(tmp_path, **change))


def test_what_is_no_archive_is_named(tmp_path):
    for name, content in (("a.npz", b"nothing"), ("b.npy", None)):
        if content is None:
            np.save(tmp_path / name, np.zeros(3))
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} cannot be read as an \.npz"):
            opened(tmp_path / name)
    with pytest.raises(DataError, match="nowhere"):
        opened(tmp_path / "nowhere")


def test_a_folder_of_images_per_class(tmp_path):
    for k, name in enumerate(["mild/a.png", "mild/b.png", "severe/c.png"]):
        picture(tmp_path / name, 51 * k)
    (tmp_path / "severe" / "notes.txt").write_text("no image")
    made = opened(tmp_path, names=("mild", "severe"))
    assert sorted(made.sample(ids(0, 0), ids(0, 1), rng())[:, 0, 0, 0].tolist()) == pytest.approx([0.0, 0.2])
    assert torch.allclose(made.sample(ids(1), ids(0), rng()), torch.tensor(0.4))
    flat = opened(tmp_path, names=("mild", "severe"), shape=(2, 3))
    assert flat.sample(ids(1), ids(0), rng()).shape == (1, 2, 3)


def test_images_of_other_sizes_unknown_classes_and_damage_are_named(tmp_path):
    picture(tmp_path / "0" / "a.png", 1)
    picture(tmp_path / "1" / "b.png", 1, size=(3, 3))
    with pytest.raises(DataError, match=r"b\.png is \(1, 3, 3\), the data are \(1, 2, 3\)"):
        opened(tmp_path)
    (tmp_path / "1" / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png cannot be decoded"):
        opened(tmp_path)
    (tmp_path / "11").mkdir()
    with pytest.raises(DataError, match=r"11 is not named like a class\. Did you mean '1'"):
        opened(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        opened(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"makes images.*\(6,\)"):
        opened(tmp_path, shape=(6,))
    with pytest.raises(ConfigError, match="1 or 3 channels, not 2"):
        opened(tmp_path, shape=(2, 2, 3))
