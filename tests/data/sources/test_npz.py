import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.sources.npz import Npz
from fedimb.data.sources.npz_file import as_ids

RNG = np.random.default_rng(0)


def images(n, *channels):
    return RNG.integers(0, 256, (n, 4, 5, *channels), dtype=np.uint8)


@pytest.fixture
def medmnist(tmp_path):
    parts = {"train": 6, "val": 3, "test": 4}
    arrays = {f"{part}_images": images(n, 3) for part, n in parts.items()}
    arrays |= {f"{part}_labels": np.arange(n, dtype=np.uint8)[:, None] % 3 for part, n in parts.items()}
    np.savez(tmp_path / "pathmnist.npz", **arrays)
    return str(tmp_path / "pathmnist.npz"), arrays


def test_medmnist_validation_joins_training_and_test_is_official(medmnist):
    path, arrays = medmnist
    data = Npz(path).load()
    assert data.x.shape == (13, 3, 4, 5)
    assert data.x.dtype == np.uint8
    assert data.scale == 1 / 255
    assert np.array_equal(data.x[6, 1], arrays["val_images"][0, :, :, 1])
    assert data.official_test.tolist() == [False] * 9 + [True] * 4
    assert data.y.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert data.class_names == ("0", "1", "2")


def test_medmnist_validation_dropped(medmnist):
    data = Npz(medmnist[0], validation="drop", class_names=["a", "b", "c", "d"]).load()
    assert len(data.x) == 10
    assert data.official_test.sum() == 4
    assert data.class_names == ("a", "b", "c", "d")


def test_grey_images_get_a_channel_and_without_a_test_part_none_is_official(tmp_path):
    x = images(3)
    np.savez(tmp_path / "d.npz", train_images=x, train_labels=[0, 1, 1])
    data = Npz(str(tmp_path / "d.npz")).load()
    assert np.array_equal(data.x, x[:, None])
    assert data.official_test is None


@pytest.mark.parametrize(
    ("x", "shape", "scale"),
    [
        (images(3, 3), (3, 3, 4, 5), 1 / 255),
        (images(3, 1).transpose(0, 3, 1, 2), (3, 1, 4, 5), 1 / 255),
        (RNG.normal(size=(3, 4)), (3, 4), 1.0),
        (RNG.normal(size=(3, 4, 5)).astype(np.float16), (3, 1, 4, 5), 1.0),
    ],
)
def test_plain_arrays(tmp_path, x, shape, scale):
    np.savez(tmp_path / "d.npz", x=x, y=np.array([1.0, 0.0, 1.0]))
    data = Npz(str(tmp_path / "d.npz")).load()
    assert (data.x.shape, data.scale, data.y.tolist()) == (shape, scale, [1, 0, 1])
    assert data.x.dtype == (np.uint8 if x.dtype == np.uint8 else np.float32)


def test_the_fingerprint_follows_the_content(medmnist):
    path, arrays = medmnist
    before = Npz(path).fingerprint()
    assert Npz(path).fingerprint() == before
    np.savez(path, **arrays | {"val_labels": np.zeros((3, 1), np.uint8)})
    assert Npz(path).fingerprint() != before


@given(labels=st.lists(st.sampled_from(["b", "a", "10", "9", "é"]), min_size=1, max_size=12))
@settings(max_examples=20, deadline=None)
def test_names_and_ids_say_the_same(labels):
    ids, names = as_ids(np.array(labels), None)
    assert [names[i] for i in ids] == labels
    ids, names = as_ids(np.array(labels), ["é", "9", "b", "a", "10"])
    assert [names[i] for i in ids] == labels
    assert names == ("é", "9", "b", "a", "10")
