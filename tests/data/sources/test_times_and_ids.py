"""Times and row ids of every source that has them: exact, checked, and no features."""

import numpy as np
import pytest

from fedimb import registry
from fedimb.data.arrays import SourceData
from fedimb.data.store import Store
from fedimb.errors import ConfigError, DataError

pil = pytest.importorskip("PIL.Image")


def table(tmp_path, rows, header="seen,code,age,dx", **settings):
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]) + "\n")
    args = {"files": str(tmp_path / "t.csv"), "target": "dx", "time_column": "seen", "id_column": "code"} | settings
    return registry.build("source", "tabular_csv", given={"on_bad": "refuse"}, **args).load()


ROWS = ["2024-03-04,007,1,a", "2023-12-31,7,2,b", "2024-03-04,x7,3,a"]


def test_a_tables_times_and_ids(tmp_path):
    data = table(tmp_path, ROWS)
    assert data.times.astype(str).tolist() == [
        f"{day}T00:00:00.000000" for day in ("2024-03-04", "2023-12-31", "2024-03-04")
    ]
    assert data.row_ids.tolist() == ["007", "7", "x7"]  # as written: 007 and 7 are two rows
    assert data.columns.names == ("age",)
    store = Store.build(data, tmp_path / "store", "f")
    assert store.times.tolist() == data.times.tolist()
    assert store.row_ids.tolist() == data.row_ids.tolist()


def test_numbers_as_times_stay_exact(tmp_path):
    big = 2**62 + 1
    data = table(tmp_path, [f"{big},p,1,a", f"{big - 1},q,2,b"], time_format="number")
    assert data.times.tolist() == [big, big - 1]


@pytest.mark.parametrize(
    ("rows", "settings", "says"),
    [
        (["03/04/2024,p,1,a"], {}, "row 2: time '03/04/2024' is not an ISO date .* give time_format"),
        ([",p,1,a"], {}, "row 2: the time is missing"),
        (["2024-03-04,,1,a"], {}, "row 2: the row id is missing"),
        ([ROWS[0], "2024-03-04,007,2,b"], {}, "row 3: row id '007' stands for an earlier row already"),
        (ROWS, {"time_column": "sen"}, "time_column names 'sen'.*Did you mean 'seen'"),
        (ROWS, {"id_column": "cod"}, "id_column names 'cod'"),
    ],
)
def test_a_tables_unusable_times_and_ids_are_refused_with_the_row(tmp_path, rows, settings, says):
    with pytest.raises(DataError, match=says):
        table(tmp_path, rows, **settings)


def test_a_format_needs_a_column(tmp_path):
    with pytest.raises(ConfigError, match="time_format goes with time_column"):
        table(tmp_path, ROWS, time_column=None, time_format="%Y-%m-%d")


def pictures(tmp_path, lines, **settings):
    for name in "pqr":
        pil.fromarray(np.full((4, 4), ord(name), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "p.csv").write_text("\n".join(["path,label,taken", *lines]) + "\n")
    args = {"path": str(tmp_path / "p.csv"), "mode": "L", "time_column": "taken"} | settings
    return registry.build("source", "image_csv", given={"on_bad": "refuse"}, **args)


def test_pictures_have_times_and_their_names_as_ids(tmp_path):
    lines = ["q.png,a,31/12/2023", "p.png,b,01/02/2024", "r.png,a,01/01/2024"]
    source = pictures(tmp_path, lines, time_format="%d/%m/%Y")
    data = source.load()
    assert data.row_ids.tolist() == ["q.png", "p.png", "r.png"]
    assert np.argsort(data.times).tolist() == [0, 2, 1]
    assert source.fingerprint() != pictures(tmp_path, lines, time_column=None).fingerprint()
    with pytest.raises(DataError, match="row 2: time '31/12/2023' is not an ISO date"):
        pictures(tmp_path, lines).load()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"times": np.arange(2)}, "times is int64 .2. beside 3 rows"),
        ({"times": np.arange(3.0)}, "times is float64"),
        ({"times": np.array(["2024-01-01", "NaT", "NaT"], "datetime64[us]")}, "row 1: the time is missing"),
        ({"row_ids": np.arange(3)}, "row_ids is int64"),
        ({"row_ids": np.array(["a", "b", "a"])}, "row id 'a' is empty or stands for several rows"),
        ({"row_ids": np.array(["a", "", "c"])}, "row 1: row id '' is empty"),
    ],
)
def test_wrong_columns_of_a_source_are_refused(columns, says):
    with pytest.raises(DataError, match=says):
        SourceData(x=np.zeros((3, 1), np.float32), y=np.zeros(3, np.int64), class_names=("a",), **columns)


def test_the_content_hash_sees_times_but_neither_ids_nor_their_absence(tmp_path):
    plain = {"x": np.zeros((3, 1), np.float32), "y": np.zeros(3, np.int64), "class_names": ("a",)}
    ids, times = np.array(["a", "b", "c"]), np.arange(3)
    found = [
        Store.build(SourceData(**plain, **more), tmp_path / str(i), "f").content_sha
        for i, more in enumerate([{}, {"row_ids": ids}, {"times": times}, {"times": times.astype("datetime64[us]")}])
    ]
    assert found[0] == found[1]
    assert len({*found}) == 3


@pytest.mark.parametrize("column", ["moment", "day"])
def test_typed_tables_give_the_same_times_and_exact_ids(tmp_path, column):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    moments = np.array(["2024-03-04T10:30", "2023-01-01"], "datetime64[us]")
    held = {"moment": moments, "day": moments.astype("datetime64[D]"), "code": [7, 2**53 + 1], "dx": ["a", "b"]}
    parquet.write_table(arrow.table(held | {"age": [1.0, 2.0]}), tmp_path / "t.parquet")
    other = "day" if column == "moment" else "moment"
    args = {"files": str(tmp_path / "t.parquet"), "target": "dx", "time_column": column, "id_column": "code"}
    data = registry.build("source", "tabular_csv", given={"on_bad": "refuse"}, drop=[other], **args).load()
    assert data.times.tolist() == held[column].astype("datetime64[us]").tolist()
    assert data.row_ids.tolist() == ["7", str(2**53 + 1)]
