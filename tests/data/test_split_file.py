"""A split as a file: read back as written, in any order of rows that have ids, and refused where it does not fit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.arrays import SourceData
from fedimb.data.groups import RowGroups
from fedimb.data.prepare import prepare
from fedimb.data.split_file import read_split, rows_sha, write_split
from fedimb.data.store import Store
from fedimb.errors import ConfigError, DataError


def source(n=12, ids=True, patients=False):
    return SourceData(
        x=np.arange(2 * n, dtype=np.float32).reshape(n, 2),
        y=(np.arange(n) % 3).astype(np.int64),
        class_names=("a", "b", "c"),
        patients=(np.arange(n) // 2).astype(np.int64) if patients else None,
        row_ids=np.array([f"scan {row:02}, left.png" for row in range(n)]) if ids else None,
    )


@pytest.fixture
def store(tmp_path):
    def build(data, name="store"):
        return Store.build(data, tmp_path / name, "f")

    return build


def saved(path, lines, store=None, header="id,side"):
    first = [] if store is None else [f"# fedimb split, format 1, {len(store)} rows, data sha256 {rows_sha(store)}"]
    path.write_text("\n".join([*first, header, *lines]) + "\n")
    return str(path)


@pytest.mark.parametrize(("public", "validation"), [(None, 0.0), (3, 0.2)])
def test_a_split_is_read_back_as_written(digits, dirichlet, tmp_path, public, validation):
    one = prepare(digits | {"public": public, "validation": validation}, dirichlet, clients=4, seed=2)
    assert write_split(one, tmp_path / "split.csv") == 1797
    group = digits | {"test": {"name": "file", "path": str(tmp_path / "split.csv")}, "long_tail": "natural"}
    two = prepare(group, dirichlet, clients=4, seed=2)
    assert np.array_equal(one.test, two.test)
    assert np.array_equal(one.public, two.public)
    for side in ("train", "validation"):
        held = [np.sort(np.concatenate(list(getattr(f, side)))) for f in (one, two)]
        assert np.array_equal(*held), side
    write_split(two, tmp_path / "again.csv")
    sides = [
        [line.rsplit(",", 1)[0] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("split.csv", "again.csv")
    ]
    assert sides[0] == sides[1]


def test_what_a_file_says_already_is_not_set_beside_it(digits, dirichlet, tmp_path):
    write_split(prepare(digits, dirichlet, clients=4, seed=2), tmp_path / "split.csv")
    group = digits | {"test": {"name": "file", "path": str(tmp_path / "split.csv")}}
    with pytest.raises(ConfigError, match=r"leaves \d+ rows unused already: set data.long_tail=natural"):
        prepare(group, dirichlet, clients=4, seed=2)
    for key, value in (("validation", 0.1), ("public", 3)):
        with pytest.raises(ConfigError, match=f"data.{key} beside data.test=file"):
            prepare(group | {key: value}, dirichlet, clients=4, seed=2)


@settings(max_examples=20, deadline=None)
@given(
    order=st.permutations(range(12)),
    sides=st.lists(st.sampled_from(["train", "test", "unused"]), min_size=10, max_size=10),
)
def test_rows_with_ids_are_found_in_any_order(tmp_path_factory, order, sides):
    folder = tmp_path_factory.mktemp("order")
    data = source()
    first = Store.build(data, folder / "one", "f")
    sides = ["test", "train", *sides]
    file = saved(folder / "split.csv", [f'"scan {row:02}, left.png",{side}' for row, side in enumerate(sides)], first)
    other = replace(data, x=data.x[order], y=data.y[order], row_ids=data.row_ids[order])
    found = read_split(file, Store.build(other, folder / "two", "f"))
    assert sorted(np.array(order)[found.test]) == [row for row, side in enumerate(sides) if side == "test"]
    assert sorted(np.array(order)[found.rest]) == [row for row, side in enumerate(sides) if side == "train"]


def test_numbered_rows_in_another_order_are_other_data(store, tmp_path):
    data = source(ids=False)
    file = saved(tmp_path / "s.csv", [f"{row},{'test' if row < 3 else 'train'}" for row in range(12)], store(data))
    assert read_split(file, store(data)).test.tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"is of other data .* write the split again"):
        read_split(file, store(replace(data, x=data.x[::-1], y=data.y[::-1]), "turned"))


@pytest.mark.parametrize("change", ["value", "class", "row"])
def test_changed_data_are_refused_although_every_id_is_there(store, tmp_path, change):
    data = source()
    lines = [f'"{name}",{"test" if row < 3 else "train"}' for row, name in enumerate(data.row_ids)]
    file = saved(tmp_path / "s.csv", lines, store(data))
    x, y = data.x.copy(), data.y.copy()
    x[5, 1] += change == "value"
    y[5] = (y[5] + (change == "class")) % 3
    kept = slice(None, 11 if change == "row" else 12)
    other = replace(data, x=x[kept], y=y[kept], row_ids=data.row_ids[kept])
    with pytest.raises(DataError, match=r"is of other data \(12 rows, sha256 [0-9a-f]{12}\)"):
        read_split(file, store(other, "other"))


GOOD = [f'"scan {row:02}, left.png",{"Test" if row < 3 else "val" if row == 11 else "training"}' for row in range(12)]


def test_another_tools_file_is_matched_by_ids_and_that_is_said(store, tmp_path, caplog):
    found = read_split(saved(tmp_path / "s.csv", [line + ",9" for line in GOOD], header="id,side,age"), store(source()))
    assert (found.test.tolist(), found.validation.tolist(), len(found.rest)) == ([0, 1, 2], [11], 9)
    assert "does not say of which data it is" in caplog.text


@pytest.mark.parametrize(
    ("lines", "header", "says"),
    [
        (GOOD[:-1], "id,side", "lacks 1 of the source's 12 rows, first 'scan 11, left.png'"),
        ([*GOOD, GOOD[0]], "id,side", "row 14: row 'scan 00, left.png' is given twice"),
        ([*GOOD[:-1], "scan 11 left.png,test"], "id,side", "row 13: no row 'scan 11 left.png' in the source. Did you"),
        ([*GOOD[:-1], '"scan 11, left.png",tests'], "id,side", "row 13: no side 'tests'. Did you mean 'test'"),
        ([*GOOD[:-1], '"scan 11, left.png"'], "id,side", "row 13: 1 fields below a header of 2"),
        (GOOD, "row,side", "needs one column 'id' in its header, which is 'row,side'"),
        (GOOD, "id,part", "needs one column 'side'"),
        ([line.replace("Test", "unused") for line in GOOD], "id,side", "has no row with side test"),
        ([line.replace("training", "unused") for line in GOOD], "id,side", "has no row with side train"),
        (['"scan 11'], "id,side", "is not a CSV"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused_with_the_place(store, tmp_path, lines, header, says):
    with pytest.raises(DataError, match=says) as refused:
        read_split(saved(tmp_path / "s.csv", lines, header=header), store(source()))
    assert "\n" not in str(refused.value)


def test_numbers_without_the_first_line_and_other_formats_are_refused(store, tmp_path):
    numbered = store(source(ids=False))
    lines = [f"{row},{'test' if row < 3 else 'train'}" for row in range(12)]
    with pytest.raises(DataError, match="rows have numbers only: keep its first line"):
        read_split(saved(tmp_path / "s.csv", lines), numbered)
    file = tmp_path / "t.csv"
    file.write_text(f"# fedimb split, format 2, 12 rows, data sha256 {'0' * 64}\nid,side\n")
    with pytest.raises(DataError, match="has format 2, this fedimb reads 1"):
        read_split(str(file), numbered)


def test_a_patient_on_two_sides_is_refused(store, tmp_path):
    data = source(patients=True)
    held = store(data)
    groups = RowGroups(np.asarray(held.patients))
    with pytest.raises(DataError, match="has 2 patients on two sides, the first in train and test"):
        read_split(saved(tmp_path / "s.csv", GOOD, held), held, groups)
    whole = [line.replace("Test", "unused") if row == 2 else line for row, line in enumerate(GOOD[:-1])]
    file = saved(tmp_path / "t.csv", [*whole, GOOD[-1].replace("val", "training")], held)
    assert len(read_split(file, held, groups).test) == 2
