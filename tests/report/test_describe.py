import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fedimb.data.arrays import SourceData
from fedimb.data.federation import Federation
from fedimb.report.describe import describe, describe_source, warnings

NAMES = ("flu", "measles", "plague", "rabies")
COUNTS = np.array([[40, 3, 0, 0], [20, 0, 0, 1], [0, 0, 0, 0]])


def made(sites=None):
    """3 clients, 4 classes; validation holds 10 flu of client 0; two test rows a class but for measles."""
    y = np.concatenate([np.repeat(np.arange(4), row) for row in COUNTS] + [[0, 0, 2, 2, 3, 3]]).astype(np.int64)
    rows = np.split(np.arange(64), [43, 64])
    one = Federation(
        source={"name": "none"},
        store_path="nowhere",
        train=[rows[0][10:], rows[1], rows[2]],
        validation=[rows[0][:10], *[np.empty(0, np.int64)] * 2],
        test=np.arange(64, 70),
        counts=COUNTS,
        class_names=NAMES,
        minority=(2,),
        fingerprint="f",
    )
    one.__dict__["store"] = SimpleNamespace(
        task="multiclass",
        class_counts=lambda rows: np.bincount(y[rows], minlength=4),
        sites=sites,
        site_names=("Bern", "Zug", "Chur"),
    )
    return one


def test_describe_by_hand():
    text = describe(made(), io.StringIO())
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("3 clients, 4 classes, 64 rows (train 54, validation 10), test 6\nimbalance factor inf, ")
    assert ["0", "flu", "50", "10", "2", "2", "1.8", "67%"] in lines
    assert ["1", "measles", "3", "0", "0", "1", "1.0", "100%"] in lines
    assert ["2", "plague", "<", "0", "0", "2", "0", "-", "-"] in lines
    assert ["client", "\\", "class", "rows", "classes", "flu", "measles", "rabies", "plague<"] in lines
    assert ["0", "43", "2", "40", "3", ".", "."] in lines
    assert ["2", ".", "0", ".", ".", ".", "."] in lines
    assert ["all", "64", "3", "60", "3", "1", "."] in lines
    assert [line for line in text.splitlines() if line.startswith("warning")] == [
        "warning: no training rows of class plague: no model can learn them",
        "warning: a single training row of class rabies: nothing to validate or vary",
        "warning: only one client holds class measles: learned only in rounds with that client",
        "warning: no test rows of class measles: their recall is undefined and not part of any mean",
        "warning: no rows at client 2 of 3: never selected",
    ]


def test_clients_that_are_sites_carry_their_names():
    sites = np.repeat([1, 0], [43, 27])
    assert "\n0 Zug  " in describe(made(sites), io.StringIO())
    mixed = np.arange(70) % 3
    assert "Zug" not in describe(made(mixed), io.StringIO())


def test_nothing_to_warn_of():
    assert warnings(np.full((2, 3), 5), np.full(3, 4), ["a", "b", "c"]) == []
    assert warnings(np.full((1, 3), 5), np.full(3, 4), ["a", "b", "c"]) == []  # one client holds all: as meant


def test_long_lists_are_cut_and_counted():
    (found,) = warnings(np.full((2, 9), 5), np.zeros(9, np.int64), [f"c{i}" for i in range(9)])
    assert found.startswith("no test rows of classes c0, c1, c2, c3 and 5 more:")


def source(**changes):
    y = np.array([0, 0, 0, 1, 1, 0], dtype=np.int64)
    return replace(SourceData(np.zeros((6, 3), np.float32), y, ("no", "yes", "maybe")), **changes)


def test_a_source_says_what_it_holds():
    text = describe_source(source(), io.StringIO())
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("6 rows of 3 float32\nno official test set\n")
    assert ["0", "no", "4", "66.7%"] in lines
    assert ["2", "maybe", "0", "0.0%"] in lines
    assert text.endswith("warning: no rows of class maybe")
    assert "left out" not in text


def test_columns_and_rows_left_out_are_told():
    x = np.zeros((6, 3), np.float32)
    x[1, 0] = np.nan
    text = describe_source(
        source(
            x=x,
            scaled=np.array([True, False, True]),
            patients=np.array([1, 1, 2, 3, 3, 9]),
            sites=np.array([0, 0, 0, 1, 1, 1]),
            site_names=("Bern", "Zug"),
            official_test=np.array([True] + [False] * 5),
            skipped=tuple(f"a.csv row {i}: no label" for i in range(12)),
        ),
        io.StringIO(),
    )
    assert "2 columns scaled with statistics summed over the clients; 1 value missing" in text
    assert "4 patients" in text
    assert "official test set: 1 rows" in text
    assert ["Zug", "3", "2", "1", "2", "."] in [line.split() for line in text.splitlines()]
    assert "12 rows left out:\n  a.csv row 0: no label" in text
    assert "a.csv row 9" in text
    assert "a.csv row 10" not in text
    assert "... 2 more" in text


@pytest.mark.parametrize("n_classes", [40, 41, 300])
def test_many_classes_fold(n_classes):
    y = np.arange(n_classes, dtype=np.int64)
    data = SourceData(np.zeros((n_classes, 1), np.float32), y, tuple(f"class {c}" for c in range(n_classes)))
    text = describe_source(data, io.StringIO())
    assert max(map(len, text.splitlines())) < 100
    assert (f"... {n_classes - 40} classes between" in text) == (n_classes > 40)
    assert f"{n_classes - 1} class {n_classes - 1}" in text


def test_several_labels_per_row_are_counted_each_and_said():
    targets = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]], np.uint8)
    y = np.array([1, 0, 1, 1, 0, 0])
    sites = {"sites": np.array([0, 0, 0, 1, 1, 1]), "site_names": ("Bern", "Zug")}
    text = describe_source(source(y=y, task="multilabel", targets=targets, **sites), io.StringIO())
    lines = [line.split() for line in text.splitlines()]
    assert "several labels per row, 1.33 on average: a row counts for each of its classes" in text
    assert ["0", "no", "5", "83.3%"] in lines
    assert ["1", "yes", "3", "50.0%"] in lines
    assert ["site", "\\", "class", "labels", "classes", "no", "yes", "maybe"] in lines
    assert ["Bern", "5", "2", "3", "2", "."] in lines


def test_a_federation_of_several_labels_tells_rows_from_labels():
    one = made()
    one.store.task = "multilabel"
    one.counts = COUNTS * 2
    text = describe(one, io.StringIO())
    assert text.startswith("3 clients, 4 classes, 64 rows (train 54, validation 10), test 6\n")
    assert "several labels per row, 2.00 on average" in text
