import multiprocessing
import os
import stat

import numpy as np
import pytest
import torch

from fedimb.data.scaling import Scaling
from fedimb.encoders.cache import cache_key, load_or_compute
from fedimb.encoders.embed import embed, open_encoder
from fedimb.encoders.identity import Identity
from fedimb.encoders.random_conv import RandomConv
from fedimb.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings"


class Counting(RandomConv):
    """Counts its passes."""

    def __init__(self):
        super().__init__(4, 2, input_shape=(3, 32, 32))
        self.passes = 0

    def encode(self, x):
        self.passes += 1
        return super().encode(x)


def test_the_second_call_reads_a_file_and_gives_the_same_bits(folder, store):
    encoder = Counting()
    first = embed(encoder, store, np.arange(9), batch=4)
    assert encoder.passes == 3
    assert torch.equal(embed(encoder, store, np.arange(9), batch=4), first)
    assert encoder.passes == 3
    (kept,) = folder.iterdir()
    assert np.array_equal(np.load(kept), first.numpy())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o644


def test_writing_to_a_result_changes_neither_file_nor_another_reader(folder):
    first = load_or_compute("k", 2, lambda: torch.ones(2, 3))
    second = load_or_compute("k", 2, lambda: torch.zeros(2, 3))
    first += 5
    assert torch.equal(second, torch.ones(2, 3))
    assert torch.equal(load_or_compute("k", 2, lambda: torch.zeros(2, 3)), torch.ones(2, 3))


def test_the_key_changes_with_whatever_could_change_an_embedding(make_store):
    rows = np.arange(4)
    scaling = Scaling(np.zeros(2, np.float32), np.ones(2, np.float32))
    store = make_store()
    keys = [
        cache_key("a", store, rows),
        cache_key("b", store, rows),
        cache_key("a", store, rows[::-1]),
        cache_key("a", store, rows[:3]),
        cache_key("a", store, rows, scaling),
        cache_key("a", make_store("other arguments"), rows),
        cache_key("a", make_store("x/store", fingerprint="other file"), rows),
        cache_key("a", make_store("y/store", scale=1.0), rows),
        cache_key("a", make_store("z/store", n=10), rows),
    ]
    assert len(set(keys)) == len(keys)
    assert cache_key("a", store, rows.astype(np.int32)) == keys[0]
    assert cache_key("a", store, np.arange(8)[::2] // 2) == keys[0]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", "cut", "short", "integers"])
def test_a_damaged_file_is_made_again(folder, damage):
    good = torch.arange(6.0).view(2, 3)
    load_or_compute("k", 2, lambda: good)
    path = folder / "k.npy"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "short":
        np.save(path, np.zeros((1, 3), np.float32))
    elif damage == "integers":
        np.save(path, np.zeros((2, 3), np.int32))
    else:
        path.write_bytes(damage)
    assert torch.equal(load_or_compute("k", 2, lambda: good), good)
    assert np.array_equal(np.load(path), good.numpy())
    assert [file.name for file in folder.iterdir()] == ["k.npy"]


def test_a_failure_leaves_nothing(folder):
    with pytest.raises(ZeroDivisionError):
        load_or_compute("k", 1, lambda: 1 / 0)
    assert not folder.exists() or not list(folder.iterdir())


def test_a_cache_that_cannot_be_written_costs_only_the_keeping(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "file"))
    assert torch.equal(load_or_compute("k", 1, lambda: torch.ones(1, 2)), torch.ones(1, 2))
    assert "embeddings are not cached" in caplog.text


def _make(turn, queue):
    torch.set_num_threads(1)
    values = [load_or_compute(f"k{i}", 40, lambda: torch.full((40, 50), 2.0)) for i in range(10)]
    queue.put(all(bool((v == 2).all()) for v in values))


def test_several_processes_make_the_same_file_at_once(folder):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_make, args=(turn, queue)) for turn in range(4)]
    for process in processes:
        process.start()
    assert all(queue.get(timeout=30) for _ in processes)
    for process in processes:
        process.join(30)
    assert sorted(os.listdir(folder)) == sorted(f"k{i}.npy" for i in range(10))


def test_what_is_as_cheap_as_a_file_is_not_kept(folder, store):
    assert torch.equal(
        embed(Identity(), store, np.array([3])), torch.from_numpy(store.x[3:4].reshape(1, -1) * np.float32(1 / 255))
    )
    assert not folder.exists()


class Broken(Identity):
    def __init__(self, change):
        self.change = change

    def encode(self, x):
        return self.change(super().encode(x))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.index_fill(0, torch.tensor([1]), float("nan")), "row 1 of 9 has a NaN or infinite embedding"),
        (lambda e: e.double(), "gave torch.float64"),
        (lambda e: e[:, 0], r"gave torch.float32 \[9\]"),
        (lambda e: e[1:], "gave 8 embeddings for 9 rows"),
        (lambda e: e[:, :0], r"expected float32 \[n, d\]"),
    ],
)
def test_embeddings_that_cannot_be_used_are_refused(folder, store, change, words):
    with pytest.raises(DataError, match=words):
        embed(Broken(change), store, np.arange(9))


def test_the_models_own_features_are_not_embedded_here(store):
    encoder = open_encoder({"name": "global_features"}, store)
    assert encoder.uses_model
    with pytest.raises(ConfigError, match="global model's features"):
        embed(encoder, store, np.arange(2))
    with pytest.raises(RuntimeError, match="use the model's features"):
        encoder.encode(torch.zeros(1, 2))


def test_an_encoder_is_built_once_and_by_name(store):
    config = {"name": "random_conv", "width": 4}
    assert open_encoder(config, store) is open_encoder(dict(config), store)
    with pytest.raises(ConfigError, match="Did you mean 'random_conv'"):
        open_encoder({"name": "random_con"}, store)
    with pytest.raises(ConfigError, match="encoder needs a name"):
        open_encoder({}, store)
    with pytest.raises(ConfigError, match=r"no argument 'widht'.*'width'"):
        open_encoder({"name": "random_conv", "widht": 4}, store)
