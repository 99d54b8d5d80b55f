import numpy as np
import pytest
import torch

from fedimb.encoders.embed import embed, open_encoder
from fedimb.errors import ConfigError, DataError
from tests.encoders.recipes import NAMES, precomputed_file


def opened(folder, store, name="precomputed", **changes):
    return open_encoder({"name": name, "path": precomputed_file(folder, **changes)}, store)


def test_rows_are_looked_up(tmp_path, store):
    x = np.arange(18.0).reshape(9, 2)
    encoder = opened(tmp_path, store, x=x, class_vectors=None, class_names=None)
    assert embed(encoder, store, np.array([8, 0, 8])).tolist() == [[16, 17], [0, 1], [16, 17]]
    assert encoder.class_vectors(NAMES) is None


def test_a_result_may_be_written_to(tmp_path, store):
    encoder = opened(tmp_path, store)
    first = embed(encoder, store, np.arange(9))
    kept = first.clone()
    first += 1
    assert torch.equal(embed(encoder, store, np.arange(9)), kept)


def test_class_vectors_go_by_name(tmp_path, store):
    vectors = np.eye(3, 4)
    encoder = opened(
        tmp_path, store, "precomputed_text", class_vectors=vectors, class_names=np.array(["old_car", "dog", "cat"])
    )
    assert encoder.class_vectors(NAMES).tolist() == vectors[::-1].tolist()
    with pytest.raises(DataError, match=r"lacks 'cats'.*Did you mean 'cat'"):
        encoder.class_vectors(("cats", "dog"))
    with pytest.raises(ConfigError, match="'dog' names two classes"):
        encoder.class_vectors(("dog", "dog"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": np.zeros((8, 4)), "y": None}, "8 embeddings and the data 9 rows; embed every row"),
        ({"x": np.zeros((10, 4)), "y": None}, "10 embeddings and the data 9 rows"),
        ({"x": np.zeros((9, 2, 2))}, r"x is float32 \[9, 2, 2\]"),
        ({"x": np.zeros((9, 4), np.uint8)}, "x is uint8"),
        ({"x": np.full((9, 4), np.inf)}, "9 bad rows.*NaN, infinite"),
        ({"y": np.roll(np.arange(9) % 3, 1)}, r"differs from the data's labels \(9 rows, first 0\)"),
        ({"y": np.arange(3)}, "differs from the data's labels"),
    ],
)
def test_files_that_do_not_fit(tmp_path, store, changes, words):
    with pytest.raises(DataError, match=words):
        opened(tmp_path, store, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_vectors": np.zeros((2, 4))}, "one vector per class name, as long as an embedding"),
        ({"class_vectors": np.zeros((3, 5))}, "as long as an embedding"),
        ({"class_vectors": np.full((3, 4), np.nan)}, "finite floats"),
        ({"class_names": None}, "no array 'class_names'"),
        ({"class_vectors": None}, "no array 'class_vectors'"),
        ({"x": np.zeros((8, 4)), "y": None}, "8 embeddings and the data 9 rows"),
    ],
)
def test_class_vectors_that_do_not_fit(tmp_path, store, changes, words):
    with pytest.raises(DataError, match=words):
        opened(tmp_path, store, "precomputed_text", **changes)
