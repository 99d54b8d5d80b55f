"""Shards of other tools: read as written by numpy 1 and 2, never run, one client each."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from fedimb.data.prepare import prepare
from fedimb.data.sources.pickled_arrays import unpickle_arrays
from fedimb.data.sources.shards import Shards
from fedimb.errors import DataError

RAN = []


class Attack:
    """Calls a function when it is unpickled."""

    def __init__(self, call, *args):
        self.made = call, args

    def __reduce__(self):
        return self.made


def remember(word):
    RAN.append(word)
    return {}


def shard(k, rows=6, **more):
    rng = np.random.default_rng(k)
    return {"x": rng.normal(size=(rows, 1, 4, 4)).astype(np.float32), "y": np.arange(rows) % 2 + k % 2} | more


def write(folder, made):
    for name, held in made.items():
        file = folder / f"{name}.npz"
        file.parent.mkdir(exist_ok=True)
        np.savez_compressed(file, data=held)


def stream(value, protocol=4):
    """The pickle that numpy writes of an object array without dimensions."""
    array = np.empty((), object)
    array[()] = value
    return pickle.dumps(array, protocol=protocol)


@pytest.fixture
def folder(tmp_path):
    write(
        tmp_path, {f"{name}/{k}": shard(k, rows) for name, rows in (("train", 6), ("test", 3)) for k in (0, 1, 10, 2)}
    )
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_each_shard_is_a_site_and_a_client_and_its_own_split_is_official(folder):
    data = Shards(str(folder)).load()
    assert data.site_names == ("0", "1", "2", "10")
    assert data.x.shape == (36, 1, 4, 4)
    assert data.class_names == ("0", "1", "2")
    assert [int((data.sites == s).sum()) for s in range(4)] == [9] * 4
    assert int(data.official_test.sum()) == 12
    first = shard(1)
    here = (data.sites == 1) & ~data.official_test
    assert np.array_equal(data.x[here], first["x"])
    assert np.array_equal(data.y[here], first["y"])
    group = {"source": {"name": "shards", "path": str(folder)}, "test": {"name": "official"}}
    federation = prepare(group, {"name": "by_column"}, clients=4, seed=0)
    assert [len(rows) for rows in federation.train] == [6] * 4
    assert len(federation.test) == 12


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_what_numpy_1_and_2_write_under_any_protocol(protocol, module):
    held = {
        "x": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
        "y": np.array([7, 2**62], np.int64),
        "b": np.array([True, False]),
        "u": np.arange(3, dtype=np.uint8),
        "n": np.zeros((0, 2), np.float64),
    }
    own = b"numpy._core" if np.__version__ >= "2" else b"numpy.core"
    # Protocol 4 counts the letters of a name, so there the bytes are not replaced but written anew.
    data = renamed(held, own.decode(), module, protocol)
    found = unpickle_arrays(data, "t")
    assert set(found) == set(held)
    for name, array in held.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype.newbyteorder("=")


def renamed(held, own, module, protocol):
    data = stream(held, protocol)
    if protocol < 4:
        return data.replace(own.encode(), module.encode())
    for ending in ("multiarray", "numeric"):
        old, new = f"{own}.{ending}".encode(), f"{module}.{ending}".encode()
        data = data.replace(bytes([0x8C, len(old)]) + old, bytes([0x8C, len(new)]) + new)
    at = 2  # a frame counts its bytes
    assert data[at] == 0x95
    return data[: at + 1] + (len(data) - at - 9).to_bytes(8, "little") + data[at + 9 :]


ATTACKS = {
    "function": {"x": Attack(remember, "function"), "y": np.zeros(2)},
    "os.system": {"x": Attack(os.system, "exit 1")},
    "eval": Attack(eval, "1"),
    "class": {"x": Attack(type, "A", (), {})},
    "numpy.load": {"x": Attack(np.load, "x.npy")},
    "object array": {"x": np.array([1, "a", None], object), "y": np.zeros(3)},
    "array of attacks": {"x": np.array([Attack(remember, "inside")], object)},
    "structured": {"x": np.zeros(2, [("a", "f4"), ("b", "i4")])},
    "text": {"x": np.array(["a", "b"])},
    "dates": {"x": np.array(["2020-01-01"], "M8[D]")},
    "list": {"x": [1, 2, 3]},
    "set": {"x": {1, 2}},
    "no dict": np.zeros(3),
    "numpy scalar": {"x": np.float32(1)},
    "key": {1: np.zeros(2)},
    "big integer dict": {"x": {"y": np.zeros(2)}},
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_but_arrays_of_numbers_is_read_and_nothing_runs(name, protocol):
    with pytest.raises(DataError, match="only arrays of numbers are read") as refused:
        unpickle_arrays(stream(ATTACKS[name], protocol), "0.npz data")
    assert "\n" not in str(refused.value)
    assert not RAN


HAND_MADE = {
    "an instance": b"(i__main__\nRow\n.",
    "a persistent id": b"Pfile\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "a new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "a module reached by its path": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__doc__\x93.",
    "state of a stand-in": b"\x80\x02cnumpy\ndtype\n}X\x05\x00\x00\x00_callcnumpy\nndarray\nsb.",
    "slots of a stand-in": b"\x80\x02cnumpy\ndtype\nN}X\x05\x00\x00\x00_callK\x01s\x86b.",
    "an attribute of numpy": b"\x80\x02cnumpy.core.multiarray\nfromfile\n.",
    "more bytes than there are": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "a far place in memory": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a claimed bytearray": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00abc.",
    "nothing": b"",
    "text": b"hello",
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_pickles_made_by_hand(name):
    with pytest.raises(DataError) as refused:
        unpickle_arrays(HAND_MADE[name], "0.npz data")
    assert "0.npz data" in str(refused.value)
    after = stream({"x": np.arange(3), "y": np.arange(3)})
    assert unpickle_arrays(after, "t")["x"].tolist() == [0, 1, 2]  # nothing was left changed


def test_an_array_that_claims_more_than_its_bytes():
    data = stream({"x": np.arange(4, dtype=np.uint8)})
    wrong = data.replace(b"K\x04\x85", b"K\x05\x85")
    assert wrong != data
    with pytest.raises(DataError, match="is damaged"):
        unpickle_arrays(wrong, "t")


def test_every_cut_is_noticed():
    data = stream({"x": np.arange(4, dtype=np.uint8), "y": np.arange(4)})
    for length in range(len(data)):
        with pytest.raises(DataError):
            unpickle_arrays(data[:length], "t")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: write(f, {"train/1": {"x": np.zeros((2, 3), np.float32)}}), "train/1.npz holds x and no y"),
        (lambda f: write(f, {"train/1": shard(1) | {"y": np.zeros(3)}}), "has 6 rows of x and 3 of y"),
        (lambda f: write(f, {"train/1": shard(1) | {"y": np.zeros((6, 2))}}), r"y is \[6, 2\]; give one label per row"),
        (
            lambda f: write(f, {"train/1": shard(1) | {"y": np.full(6, 0.5)}}),
            r"y\[0\] and 5 more: label 0.5 is not a whole number",
        ),
        (
            lambda f: write(f, {"train/1": shard(1) | {"x": np.zeros((6, 5), np.float32)}}),
            "give the same shape and type",
        ),
        (lambda f: write(f, {"train/1": shard(1) | {"x": np.zeros((6, 1, 4, 4), np.int64)}}), "x is int64; save it as"),
        (lambda f: write(f, {"train/1": shard(1) | {"x": np.full((6, 1, 4, 4), np.nan)}}), "give the same|NaN"),
        (lambda f: write(f, {"train/1": [1, 2]}), r"data is int64 \[2\]; give a dict|pickled list"),
        (lambda f: (f / "train/1.npz").write_bytes(b""), "is not an .npz file"),
        (
            lambda f: (f / "train/1.npz").write_bytes((f / "train/1.npz").read_bytes()[:300]),
            "is not an .npz file|damaged",
        ),
        (lambda f: (f / "train").rename(f / "practice"), "has no folder 'train'"),
        (lambda f: [file.unlink() for file in f.rglob("*.npz")], "has no shards"),
    ],
)
def test_bad_shards_are_named(folder, change, says):
    change(folder)
    with pytest.raises(DataError, match=says) as refused:
        Shards(str(folder)).load()
    assert "\n" not in str(refused.value)


def test_plain_arrays_images_with_channels_last_and_class_names(tmp_path):
    (tmp_path / "train").mkdir()
    for k in range(2):
        np.savez(tmp_path / "train" / f"{k}.npz", x=np.zeros((4, 8, 8, 3), np.uint8), y=np.array([[0], [1], [1], [0]]))
    data = Shards(str(tmp_path), class_names=["cat", "dog"]).load()
    assert data.x.shape == (8, 3, 8, 8)
    assert (data.scale, data.class_names, data.official_test) == (1 / 255, ("cat", "dog"), None)
    with pytest.raises(DataError, match="label 1 is outside the class ids 0 to 0"):
        Shards(str(tmp_path), class_names=["cat"]).load()


def test_a_compressed_claim_is_refused_before_it_is_unpacked(tmp_path):
    (tmp_path / "train").mkdir()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, data=shard(0))
    with zipfile.ZipFile(buffer) as archive:
        content = archive.read("data.npy")
    with zipfile.ZipFile(tmp_path / "train/0.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", content)
    raw = bytearray((tmp_path / "train/0.npz").read_bytes())
    at = raw.rindex(b"PK\x01\x02") + 24  # the size it claims, in the directory
    raw[at : at + 4] = (2**31).to_bytes(4, "little")
    (tmp_path / "train/0.npz").write_bytes(bytes(raw))
    with pytest.raises(DataError, match="more than the file can hold"):
        Shards(str(tmp_path)).load()
