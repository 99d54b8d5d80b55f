"""Bad arrays, one by one: where, what, and that skipping leaves out the bad row alone."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from fedimb.data.sources.embeddings_npz import EmbeddingsNpz
from fedimb.data.sources.npz import Npz
from fedimb.errors import DataError

X = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


Y = np.array([[0], [1], [1]])


F = np.arange(6, dtype=np.float32).reshape(3, 2)


WITH_NAN = np.array([[0, 1], [np.nan, 1], [2, 3]], np.float32)


OBJECTS = np.array([{"a": 1}, None, 3], dtype=object)


# (source, arrays, arguments, what is said)
ARRAYS = [
    (Npz, {}, {}, "d.npz holds nothing; give train_images and train_labels, or x and y"),
    (Npz, {"images": X}, {}, "d.npz holds images; give train_images"),
    (Npz, {"train_images": X}, {}, "d.npz has no array 'train_labels'"),
    (Npz, {"x": X}, {}, "d.npz has no array 'y'"),
    (Npz, {"x": X, "y": Y[:2]}, {}, "d.npz y is [2] beside 3 rows; give one value per row"),
    (Npz, {"x": X[0, 0], "y": Y}, {}, "d.npz x is [2]; give rows of values"),
    (Npz, {"x": X[:0], "y": Y[:0]}, {}, "d.npz x is [0, 2, 2]; give rows of values"),
    (Npz, {"x": X.astype(np.int64), "y": Y}, {}, "d.npz x is int64; save it as uint8 (0 to 255) or float32"),
    (Npz, {"x": np.zeros((3, 2, 2, 2), np.uint8), "y": Y}, {}, "d.npz x is [3, 2, 2, 2]; give [n, height, width]"),
    (Npz, {"x": X, "y": np.eye(3, 4).astype(str)}, {}, "d.npz y is <U32 [3, 4]; give 0 and 1, one column per class"),
    (Npz, {"x": X, "y": np.eye(3, 4)[None]}, {}, "d.npz y is [1, 3, 4] beside 3 rows"),
    (Npz, {"x": X, "y": np.eye(3)}, {"class_names": ["a", "b"]}, "class_names has 2 names for 3 columns of labels"),
    (
        Npz,
        {"x": X, "y": np.eye(3)},
        {"class_names": list("abcd")},
        "give one per column, optionally followed by 'none'",
    ),
    (
        Npz,
        {"train_images": X, "train_labels": np.eye(3), "test_images": X, "test_labels": Y},
        {},
        "d.npz test_labels has one class id per row but earlier parts have 3 columns; use one layout",
    ),
    (Npz, {"x": X, "y": Y.astype("datetime64[s]")}, {}, "d.npz y is datetime64[s]; give class ids as integers"),
    (Npz, {"x": OBJECTS, "y": Y}, {}, "d.npz x holds Python objects, which could run code when read"),
    (Npz, {"x": X, "y": OBJECTS}, {}, "d.npz y holds Python objects"),
    (
        Npz,
        {"train_images": X, "train_labels": Y, "test_images": F, "test_labels": Y},
        {},
        "d.npz: test_images and test_labels differ from the other parts in shape or type",
    ),
    (EmbeddingsNpz, {"x": X, "y": Y}, {}, "d.npz x is uint8 [3, 2, 2]; give float32 [n, d]"),
    (EmbeddingsNpz, {"y": Y}, {}, "d.npz has no array 'x'. Valid: y."),
    (EmbeddingsNpz, {"x": F, "y": Y, "class_names": np.array([1, 2])}, {}, "d.npz class_names is int64 [2]; give text"),
    (
        EmbeddingsNpz,
        {"x": F, "y": Y, "sites": Y.astype("datetime64[s]")},
        {},
        "d.npz sites is datetime64[s]; give site",
    ),
    (Npz, {"x": F, "y": Y, "site": Y}, {}, "d.npz holds an array 'site', which is not read. Did you mean 'sites'?"),
    (
        EmbeddingsNpz,
        {"x": F, "y": Y, "patient": Y},
        {},
        "an array 'patient', which is not read. Did you mean 'patients'?",
    ),
    (
        Npz,
        {"train_images": X, "train_labels": Y, "train_Sites": Y},
        {},
        "an array 'train_Sites', which is not read. Did you mean 'train_sites'?",
    ),
    (Npz, {"data": X, "label": Y}, {}, "x and y; here perhaps arrays={x: data, y: label}"),
    (EmbeddingsNpz, {"data": F, "label": Y}, {}, "d.npz has no array 'x'; here perhaps arrays={x: data, y: label}"),
    (Npz, {"data": X, "y": Y}, {"arrays": {"x": "dat"}}, "no array 'dat' (arrays: x). Did you mean 'data'?"),
    (Npz, {"x": X, "y": np.eye(3)}, {}, "3 columns with a single 1 in every row: give labels=onehot if a row has one"),
    (Npz, {"x": X, "y": Y}, {"labels": "onehot"}, "labels=onehot reads numbers [n, C], one column per class"),
    (
        Npz,
        {"x": X, "y": np.array([1, 2, 5])},
        {"class_names": ["a", "b"]},
        "holds the ids 1, 2, 5, and class_names lists 2",
    ),
    (Npz, {"x": X, "y": np.array([1, 2, 2])}, {"class_names": list("abc")}, "class_names={1: a, ...}, with every id"),
    (
        Npz,
        {"x": X, "y": np.full(3, 7)},
        {"ignore_label": 7},
        "every row is left out: d.npz y[0]: its label is ignore_label",
    ),
    (EmbeddingsNpz, {"x": F, "y": Y, "sites": Y[:2]}, {}, "d.npz sites is [2] beside 3 rows"),
    (EmbeddingsNpz, {"x": F, "y": Y}, {"site_names": ["a"]}, "d.npz has site_names but no sites"),
    (EmbeddingsNpz, {"x": F, "y": Y, "patients": Y.astype("datetime64[s]")}, {}, "patients is datetime64[s]; give"),
    (EmbeddingsNpz, {"x": F, "y": Y, "test": Y}, {}, "d.npz test is int64; give bool"),
    (EmbeddingsNpz, {"x": F, "y": Y, "class_names": np.array(["a", "a"])}, {}, "must be distinct"),
]


# The same, of row 1 alone: refused by name, or left out.
ARRAY_ROWS = [
    (Npz, {"x": X, "y": np.array([[0, 1], [0, 2], [1, 0]])}, {}, "d.npz y[1]: 2 in column 1 is neither 0 nor 1"),
    (Npz, {"x": X, "y": np.array([[0, 1], [np.nan, 1], [1, 0]])}, {}, "d.npz y[1]: nan in column 0 is neither"),
    (
        Npz,
        {"x": X, "y": np.array([[0, 1], [1, 1], [1, 0]])},
        {"class_names": ["mass", "No Finding"]},
        "d.npz y[1]: label 'No Finding' stands beside 'mass': a row has it alone, or only others",
    ),
    (EmbeddingsNpz, {"x": F, "y": np.array([[0, 1], [0, -1], [1, 0]])}, {}, "d.npz y[1]: -1 in column 1 is neither"),
    (
        Npz,
        {"x": X, "y": np.array([0, -1, 1])},
        {},
        "d.npz y[1]: label -1 stands beside ids 0 to 1 as a mark for 'no label' does: give ignore_label=-1, or, if",
    ),
    (Npz, {"x": X, "y": np.array([3, 255, 4])}, {}, "d.npz y[1]: label 255 stands beside ids 3 to 4"),
    (Npz, {"x": X, "y": np.array([1, 2**53, 0], float)}, {}, "whole numbers from 2^53 on are rounded in it"),
    (Npz, {"x": X, "y": np.array([1, -2, 1])}, {"label_map": {1: "a"}}, "d.npz y[1]: label -2 is not named (1)"),
    (Npz, {"x": X, "y": np.array([[1, 0], [1, 1], [0, 1]])}, {"labels": "onehot"}, "d.npz y[1]: is not one-hot"),
    (
        EmbeddingsNpz,
        {"x": F, "y": Y, "patients": np.array(["p", "", "q"])},
        {},
        "d.npz patients[1]: patient '' is empty",
    ),
    (EmbeddingsNpz, {"x": F, "y": Y, "patients": np.array([1, np.nan, 2])}, {}, "patients[1]: patient nan is not a"),
    (Npz, {"x": F, "y": Y, "sites": np.array([0, 0.5, 1])}, {}, "d.npz sites[1]: site 0.5 is not a site id"),
    (Npz, {"x": X, "y": np.array([0, 0.5, 1])}, {}, "d.npz y[1]: label 0.5 is not a class id"),
    (Npz, {"x": X, "y": np.array([0, np.nan, 1])}, {}, "d.npz y[1]: label nan is not a class id"),
    (
        Npz,
        {"x": X, "y": np.array([0, 2, 1])},
        {"class_names": ["a", "b"]},
        "label 2 is not a class id: give whole numbers from 0 to 1",
    ),
    (Npz, {"x": WITH_NAN, "y": np.array([0, -1, 1])}, {}, "d.npz x[1]: NaN, infinite or too large for float32"),
    (Npz, {"x": F.astype(np.float64) * [[1], [1e39], [1]], "y": Y}, {}, "d.npz x[1]: NaN, infinite or too large"),
    (EmbeddingsNpz, {"x": F, "y": np.array(["a", "", "b"])}, {}, "d.npz y[1]: label '' is empty"),
    (
        EmbeddingsNpz,
        {"x": F, "y": np.array(["a", "c", "b"])},
        {"class_names": ["a", "b"]},
        "label 'c' is not in class_names",
    ),
    (EmbeddingsNpz, {"x": F * [[1], [0], [1]], "y": Y}, {"l2_normalise": True}, "d.npz x[1]: all zeros"),
    (EmbeddingsNpz, {"x": F, "y": Y, "sites": np.array([0, -1, 0])}, {}, "d.npz sites[1]: site -1 is not known"),
    (
        EmbeddingsNpz,
        {"x": F, "y": Y, "sites": np.array(["a", "z", "a"])},
        {"site_names": ["a"]},
        "sites[1]: site 'z' is not",
    ),
]


@pytest.fixture
def npz(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(source, held, **args):
        np.savez(tmp_path / "d.npz", **held)
        return source(path="d.npz", **args).load()

    return read


@pytest.mark.parametrize(("source", "arrays", "args", "says"), ARRAYS)
def test_bad_arrays_are_refused(npz, source, arrays, args, says):
    with pytest.raises(DataError) as caught:
        npz(source, arrays, **args)
    assert says in str(caught.value)


@pytest.mark.parametrize(("source", "arrays", "args", "says"), ARRAY_ROWS)
def test_a_bad_row_of_an_array_is_named_or_left_out(npz, source, arrays, args, says):
    with pytest.raises(DataError, match=r"^1 bad row: ") as caught:
        npz(source, arrays, **args)
    assert says in str(caught.value)
    data = npz(source, arrays, **args, on_bad="skip")
    assert len(data.x) == 2
    assert says in data.skipped[0]


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 cut short"])
def test_what_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz is not an \.npz file; write it with numpy\.savez"):
        Npz(path=str(tmp_path / "d.npz")).load()


def test_one_array_and_a_damaged_one_are_refused(tmp_path):
    np.save(tmp_path / "d.npy", X)
    with pytest.raises(DataError, match=r"is one array \(\.npy\), not an \.npz file"):
        Npz(path=str(tmp_path / "d.npy")).load()
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    damaged = bytearray((tmp_path / "d.npz").read_bytes())
    damaged[170] ^= 0xFF  # inside x: its checksum no longer fits
    (tmp_path / "d.npz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"x is damaged \(BadZipFile\); copy the file again"):
        Npz(path=str(tmp_path / "d.npz")).load()


def lying(path, shape, compressed=False):
    """An .npz whose x has six float32 values and a header of another shape."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        archive.writestr("x.npy", head.getvalue() + F.tobytes())
        for key in ("y", "train_labels"):
            array = io.BytesIO()
            np.save(array, Y)
            archive.writestr(f"{key}.npy", array.getvalue())


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("shape", [(3, 10**12), (10**9, 2), (2, 2)])
def test_a_header_that_claims_another_size_is_refused_before_memory_is_taken(tmp_path, shape, compressed):
    path = tmp_path / "d.npz"
    lying(path, shape, compressed)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"d\.npz x: its header says float32 .* but the file holds 24; write"):
        EmbeddingsNpz(str(path)).load()
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_an_archive_that_claims_more_than_its_bytes_can_hold_is_refused(tmp_path):
    path = tmp_path / "d.npz"
    lying(path, (3, 10**8))
    with zipfile.ZipFile(path) as archive:
        true = archive.getinfo("x.npy").file_size
    claimed = true - F.nbytes + 3 * 10**8 * F.itemsize
    lies = path.read_bytes().replace(struct.pack("<LL", true, true), struct.pack("<LL", claimed, claimed))
    path.write_bytes(lies)
    with pytest.raises(DataError, match=r"d\.npz x: it says 1,200,000,128 bytes, more than its .* can hold"):
        EmbeddingsNpz(str(path)).load()
