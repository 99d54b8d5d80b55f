import numpy as np
import pytest

from fedimb.data.arrays import SourceData
from fedimb.errors import DataError

BOTH = np.ones((4, 2), np.uint8)


def make(**changes):
    base = {
        "x": np.zeros((4, 3), np.float32),
        "y": np.array([0, 1, 0, 1]),
        "class_names": ("a", "b"),
    }
    return SourceData(**{**base, **changes})


def bad_row(value):
    x = np.zeros((4, 3), np.float32)
    x[2, 1] = value
    return x


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x": np.zeros((0, 3), np.float32), "y": np.zeros(0, np.int64)}, "no rows"),
        ({"x": np.zeros((4, 3))}, "float64"),
        ({"x": np.zeros(4, np.float32)}, "float32 \\[4\\]"),
        ({"y": np.array([0, 1, 2, 1])}, "row 2: label 2 is outside"),
        ({"y": np.array([0, -1, 0, 1])}, "row 1: label -1 is outside"),
        ({"y": np.array([0, 1, 0])}, "y is int64 \\[3\\]"),
        ({"y": np.array([0, 1, 0, 1], np.int32)}, "y is int32"),
        ({"x": bad_row(np.nan)}, "row 2: value 1 is NaN"),
        ({"x": bad_row(np.inf)}, "row 2: value 1 is NaN or infinite"),
        ({"class_names": ("a", "a")}, "distinct"),
        ({"scale": 0.0}, "scale"),
        ({"task": "ranking"}, "task 'ranking' is not known; use multiclass or multilabel"),
        ({"task": "multilabel"}, "task 'multilabel' without targets"),
        ({"targets": BOTH}, "task 'multiclass' with targets"),
        ({"task": "multilabel", "targets": BOTH.astype(np.int64)}, "targets is int64 \\[4, 2\\]"),
        ({"task": "multilabel", "targets": BOTH[:, :1]}, "targets is uint8 \\[4, 1\\]"),
        ({"task": "multilabel", "targets": BOTH * 3}, "row 0: target 3 of class 0 is neither 0 nor 1"),
        ({"task": "multilabel", "targets": BOTH * [[1, 0]]}, "targets is int64"),
        (
            {"task": "multilabel", "targets": BOTH * np.array([[1, 0]], np.uint8)},
            "row 1: y is class 1, which is not one",
        ),
        ({"sites": np.array([0, 0, 1, 5]), "site_names": ("p", "q")}, "row 3: site 5"),
        ({"site_names": ("p",)}, "without sites"),
        ({"patients": np.array([1, 2])}, "patients"),
        ({"official_test": np.array([0, 1, 0, 1])}, "official_test is int64"),
    ],
)
def test_refuses_with_place_and_reason(changes, says):
    with pytest.raises(DataError, match=says):
        make(**changes)


def test_finds_a_nan_behind_the_first_chunk(monkeypatch):
    monkeypatch.setattr("fedimb.data.arrays._CHUNK", 6)
    x = np.zeros((9, 3), np.float32)
    x[7, 2] = np.nan
    with pytest.raises(DataError, match="row 7: value 2"):
        make(x=x, y=np.zeros(9, np.int64))


def test_a_class_without_rows_is_legal():
    assert make(class_names=("a", "b", "c")).class_names == ("a", "b", "c")
