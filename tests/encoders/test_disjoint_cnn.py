import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedimb.data.longtail import class_ranks, keep_rows, target_counts
from fedimb.data.views import to_tensors
from fedimb.encoders.disjoint_cnn import DisjointCnn, digests
from fedimb.encoders.embed import embed, open_encoder
from fedimb.errors import DataError
from fedimb.models.cnn4conv import CNN4Conv
from fedimb.seeds import Stream, numpy_rng
from tests.encoders.recipes import COLOUR, NAMES, cnn_file

SCRIPT = Path(__file__).parents[2] / "experiments" / "encoders" / "disjoint_cnn.py"


def test_it_gives_the_trained_models_features(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = CNN4Conv(3, COLOUR, 4)  # as in cnn_file
    encoder, x = DisjointCnn(cnn_file(tmp_path), input_shape=COLOUR), torch.rand(2, *COLOUR)
    assert torch.equal(encoder.encode(x), model.features(x))
    assert encoder.provenance == "oracle-auxiliary"


def test_class_vectors_go_by_name(tmp_path):
    encoder = DisjointCnn(cnn_file(tmp_path), input_shape=COLOUR)
    assert torch.equal(encoder.class_vectors(("dog",)), encoder.class_vectors(NAMES)[1:2])
    with pytest.raises(DataError, match=r"has no class 'catt'.*Did you mean 'cat'"):
        encoder.class_vectors(("catt",))


def test_an_image_it_was_trained_on_is_refused(tmp_path, store):
    seen = digests(to_tensors(store, np.array([2, 5]))[0])
    encoder = open_encoder({"name": "disjoint_cnn", "path": cnn_file(tmp_path, trained_on=seen)}, store)
    assert len(embed(encoder, store, np.array([0, 1, 3]))) == 3
    with pytest.raises(DataError, match=r"2 of 9 images are among the training images of .*cnn"):
        embed(encoder, store, np.arange(9))


def test_digests_know_grey_levels_and_nothing_else(store):
    x, _ = to_tensors(store, np.arange(9))
    assert len(set(digests(x).tolist())) == 9
    assert np.array_equal(digests(x), digests(x.double().float() * (1 + 1e-7)))
    other = x.clone()
    other[4, 0, 0, 0] += 1 / 255 if other[4, 0, 0, 0] < 0.5 else -1 / 255
    assert (digests(x) != digests(other)).tolist() == [False] * 4 + [True] + [False] * 4


def test_files_of_something_else(tmp_path):
    with pytest.raises(DataError, match=r"reads images \[3, 32, 32\], this data has \[3, 8, 8\]"):
        DisjointCnn(cnn_file(tmp_path), input_shape=(3, 8, 8))
    (tmp_path / "text").write_text("nothing")
    save_file({"w": torch.zeros(1)}, tmp_path / "bare")
    save_file({"w": torch.zeros(1)}, tmp_path / "part", metadata={"disjoint_cnn": "{}"})
    for name in ("text", "bare", "part"):
        with pytest.raises(DataError, match=rf"{name} is not a file of experiments/encoders/disjoint_cnn.py"):
            DisjointCnn(str(tmp_path / name), input_shape=COLOUR)


class Rows:
    """What the script reads of a store."""

    n_classes = 3

    def __init__(self):
        self.y = np.arange(60) % 3
        self.official_test = np.arange(60) >= 45


def test_what_the_script_reserves_is_all_that_a_tail_may_draw():
    script = runpy.run_path(str(SCRIPT))
    store, rest = Rows(), np.arange(45)
    script["reserved_rows"].__globals__["N_MAX"] = 8
    for seeds in ([0], [4], [0, 4, 7]):
        reserved = script["reserved_rows"](store, seeds)
        assert (np.bincount(store.y[reserved]) >= 8).all()
        for seed in seeds:
            for imbalance in (1.0, 3.0, 8.0):
                ranks = class_ranks(3, "seeded", numpy_rng(seed, Stream.TAIL, 0))
                counts = target_counts(np.full(3, 15), "exponential", imbalance, 8, ranks, ("a", "b", "c"))
                tail = keep_rows(rest, store.y, counts, numpy_rng(seed, Stream.TAIL, 1))
                assert np.isin(tail, reserved).all()
    assert len(script["reserved_rows"](store, [0])) == 24


def test_the_script_trains_on_no_copy_of_a_reserved_or_test_image(make_store):
    script = runpy.run_path(str(SCRIPT))
    store = make_store(n=8)
    x = np.array(store.x)
    x[4], x[5] = x[0], x[7]  # copies of a reserved and of a test image

    class Copies:
        official_test = np.arange(8) >= 6
        scale, targets, y = store.scale, None, store.y

        def __len__(self):
            return 8

    Copies.x = x
    rows, seen = script["training_rows"](Copies(), np.array([0, 1]))
    assert rows.tolist() == [2, 3]
    assert np.array_equal(seen, digests(to_tensors(store, rows)[0]))
