"""Parquet, Arrow, ARFF and KEEL files hold what the same table in a CSV holds; bad files are refused in one line."""

import datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.inputs import Inputs
from fedimb.data.new_rows import Expected
from fedimb.data.problems import Problems
from fedimb.data.sources.tabular_csv import TabularCsv
from fedimb.errors import DataError
from fedimb.testing import check_source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COLUMNS = {
    "who": [999000011000000103, 999000011000000104, None, 999000011000000128, 5, 5],
    "age": [50, None, 61, 72, 0, 3],
    "dose": [0.1, 2.5, None, float("nan"), -1.0, 3.25],
    "stage": ["I", "II", None, "I", "NA", "II"],
    "code": [1.0, 2.0, 1.0, None, 2.0, 2.0],
    "flag": [True, False, None, True, True, False],
    "price": [Decimal("1.50"), Decimal("100.00"), None, Decimal("-2.25"), Decimal("0.00"), Decimal("7.00")],
    "split": ["train", "test", "train", "val", "test", "train"],
    "label": [7, 7, 8, 8, 7, 8],
}
ARGS = {
    "target": "label",
    "categorical": ["stage", "code"],
    "missing_values": {"age": [0], "dose": ["3.25"]},
    "split_column": "split",
    "on_bad": "skip",
}


def as_text(value):
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)


def written(folder, columns=COLUMNS, name="t"):
    table = pa.table(columns)
    pq.write_table(table, folder / f"{name}.parquet", row_group_size=4)
    with pa.ipc.new_file(folder / f"{name}.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=4)
    with pa.ipc.new_stream(folder / f"{name}.ipc", table.schema) as file:
        file.write_table(table)
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(as_text, row)) for row in rows)]
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def same(one, other):
    assert one.class_names == other.class_names
    for name in ("x", "y", "patients", "sites", "official_test", "scaled", "targets"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "x"), name
    assert one.columns == other.columns
    assert one.site_names == other.site_names


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "ipc"])
@pytest.mark.parametrize("more", [{"patient": "who"}, {"site_column": "who"}, {"drop": ["who"]}], ids=str)
def test_typed_files_give_what_the_csv_gives(tmp_path, suffix, more):
    written(tmp_path)
    csv, typed = (TabularCsv(str(tmp_path / f"t.{end}"), **ARGS, **more).load() for end in ("csv", suffix))
    same(typed, csv)
    assert len(typed.skipped) == len(csv.skipped) == (0 if "drop" in more else 1)  # the row without a patient or site


def test_whole_numbers_beyond_two_to_the_53_stay_exact(tmp_path):
    codes = [999000011000000103, 999000011000000128, None, 999000011000000103]
    pq.write_table(pa.table({"a": [1, 2, 3, 4], "code": codes, "y": [0, 1, 0, 1]}), tmp_path / "t.parquet")
    data = TabularCsv(str(tmp_path / "t.parquet"), target="y", site_column="code", on_bad="skip").load()
    assert data.site_names == ("999000011000000103", "999000011000000128")
    assert data.sites.tolist() == [0, 1, 0]
    data = TabularCsv(str(tmp_path / "t.parquet"), target="code", on_bad="skip").load()
    assert data.class_names == ("999000011000000103", "999000011000000128")
    pq.write_table(pa.table({"a": [1.0, 2, 3], "code": [1.0, 2.0, 9e17]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 3: column 'code' names something and holds the float 900000000000000000"):
        TabularCsv(str(tmp_path / "t.parquet"), target="code").load()


cells = st.one_of(st.none(), st.integers(-(2**62), 2**62), st.integers(-3, 3))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(cells, st.sampled_from(["a", "b", "", " a"]), st.integers(0, 2)), min_size=2, max_size=12))
def test_blocks_hold_what_single_rows_hold(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("blocks")
    numbers, words, labels = zip(*rows, strict=True)
    table = pa.table({"n": pa.array(numbers, pa.int64()), "w": words, "y": labels})
    pq.write_table(table, folder / "t.parquet")
    make = TabularCsv(str(folder / "t.parquet"), target="y", categorical=["w"], missing_values={"n": [0]})
    one = make.load()
    opened = make.parts()[0].open({})
    opened.blocks = None
    make.parts = lambda: [make_part(opened)]
    same(one, make.load())


def test_booleans_are_numbers_as_features_and_words_as_names(tmp_path):
    columns = {"flag": [True, False, None], "kind": [True, False, True], "y": [True, False, False]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    args = {"files": str(tmp_path / "t.parquet"), "target": "y"}
    data = TabularCsv(**args, categorical=["kind"], indicators=False).load()
    assert data.class_names == ("False", "True")
    assert data.columns.categories == {"kind": ("False", "True")}
    assert data.x[:2, 0].tolist() == [1, 0]
    assert TabularCsv(**args, drop=["kind"], target_map={"0": "well", "1": "ill"}).load().y.tolist() == [1, 0, 0]


def make_part(opened):
    from fedimb.data.sources.tabular_csv import Site

    return Site(None, opened.path, lambda _: opened)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ([datetime.date(2020, 1, 1)] * 4, "'odd' holds dates or times, which no model reads: drop it"),
        ([datetime.timedelta(1)] * 4, "'odd' holds dates or times"),
        ([b"ab"] * 4, "'odd' holds bytes"),
        ([[1, 2]] * 4, "'odd' holds lists or records"),
        (["x", "1", "2", "3"], "row 1: column 'odd': 'x' is not a number; list the column as categorical"),
        ([1.0, float("inf"), 2.0, 3.0], "row 2: column 'odd': 'inf' is not a finite number"),
        ([1e300, 1.0, 2.0, 3.0], "row 1: column 'odd': '1e[+]300' is not a finite number"),
    ],
)
def test_columns_that_no_model_reads(tmp_path, column, says):
    pq.write_table(pa.table({"a": [1, 2, 3, 4], "odd": column, "y": [0, 1, 0, 1]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=says):
        TabularCsv(str(tmp_path / "t.parquet"), target="y").load()
    assert TabularCsv(str(tmp_path / "t.parquet"), target="y", drop=["odd"]).load().x.shape == (4, 1)


def test_times_and_row_ids_are_those_of_single_rows(tmp_path):
    days = [datetime.datetime(2020, 1, 1 + d % 2, 10) for d in range(4)]
    columns = {"a": [1, 2, 3, 4], "day": days, "row": [2**60 + i for i in range(4)], "y": [0, 1, 0, 1]}
    args = {"target": "y", "time_column": "day", "id_column": "row"}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = TabularCsv(str(tmp_path / "t.parquet"), **args).load()
    assert data.row_ids.tolist() == [str(2**60 + i) for i in range(4)]
    assert data.times.tolist() == days
    columns["row"][3] = columns["row"][0]
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 4: row id '1152921504606846976' stands for an earlier row already"):
        TabularCsv(str(tmp_path / "t.parquet"), **args).load()


def test_dates_may_be_categories_or_patients(tmp_path):
    days = [datetime.date(2020, 1, d) for d in (2, 1, 1, 2)]
    pq.write_table(pa.table({"a": [1, 2, 3, 4], "day": days, "y": [0, 1, 0, 1]}), tmp_path / "t.parquet")
    made = TabularCsv(str(tmp_path / "t.parquet"), target="y", categorical=["day"])
    made.load()
    assert made.feature_names == ("a", "day=2020-01-01", "day=2020-01-02")
    data = TabularCsv(str(tmp_path / "t.parquet"), target="y", patient="day").load()
    assert data.patients.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("end", ["parquet", "arrow"])
def test_damaged_and_empty_files(tmp_path, end):
    written(tmp_path)
    file = tmp_path / f"t.{end}"
    whole = file.read_bytes()
    for content in (b"", b"not a table at all", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"is not a readable (Parquet|Arrow) file") as refused:
            TabularCsv(str(file), **ARGS).load()
        assert "\n" not in str(refused.value)
    written(tmp_path, {"a": [], "label": []}, "none")
    with pytest.raises(DataError, match="has no rows"):
        TabularCsv(str(tmp_path / f"none.{end}"), target="label").load()


def test_sites_may_send_files_of_several_formats(tmp_path):
    written(tmp_path)
    files = {end: str(tmp_path / f"t.{end}") for end in ("csv", "parquet", "arrow")}
    data = TabularCsv(files, **ARGS, drop=["who"]).load()
    assert data.site_names == ("csv", "parquet", "arrow")
    assert np.array_equal(data.x[:6], data.x[6:12], equal_nan=True)
    assert np.array_equal(data.x[:6], data.x[12:], equal_nan=True)


ARFF = """% a comment
@RELATION 'two words'
@attribute 'the age' NUMERIC
@attribute\tsmokes {no, yes, 'now and then'}
@attribute note string
@attribute seen date "yyyy-MM-dd"
@attribute class {a,'b c'}
@data
50, yes, 'it''s', "2020-01-01", a
% another
51.5,'now and then',"x, y",?,'b c'
?,?,z,?,a
60,no,z,?,"b c"
"""
KEEL = """@relation abalone
@attribute Sex {M, F, I}
@attribute Length real[0.075, 0.815]
@attribute Rings integer [1, 29]
@attribute Class{positive, negative}
@inputs Sex, Length, Rings
@outputs Class
@data
M, 0.35, 7, negative
I, <null>, 8, positive
F, 0.53, 9, negative
"""


def test_an_arff_file(tmp_path):
    file = tmp_path / "t.arff"
    file.write_text(ARFF)
    source = TabularCsv(str(file), target="class", drop=["note", "seen"])
    data = source.load()
    assert data.class_names == ("a", "b c")
    assert source.feature_names[:4] == ("the age", "smokes=no", "smokes=yes", "smokes=now and then")
    assert data.x[:, :4].tolist()[:2] == [[50, 0, 1, 0], [51.5, 0, 0, 1]]
    assert np.isnan(data.x[2, 0])
    assert data.x[2, 1:4].tolist() == [0, 0, 0]
    assert source.feature_names[4:] == ("the age missing", "smokes missing")
    with pytest.raises(DataError, match="column 'seen' holds dates or times"):
        TabularCsv(str(file), target="class", drop=["note"]).load()
    check_source("tabular_csv", files=[str(file)], target="class", drop=["note", "seen"])


def test_a_keel_file(tmp_path):
    file = tmp_path / "abalone.dat"
    file.write_text(KEEL)
    source = TabularCsv([str(file)], target="Class")
    data = source.load()
    assert data.class_names == ("negative", "positive")
    assert data.y.tolist() == [0, 1, 0]
    assert source.feature_names == ("Sex=M", "Sex=F", "Sex=I", "Length", "Rings", "Length missing")
    assert source.parts()[0].open({}).outputs == ("Class",)
    (tmp_path / "plain.dat").write_text("a;label\n1;x\n2;y\n")  # not every .dat is KEEL's
    assert TabularCsv(str(tmp_path / "plain.dat"), target="label", delimiter=";").load().y.tolist() == [0, 1]


def test_sparse_rows(tmp_path):
    file = tmp_path / "s.arff"
    file.write_text(
        "@relation s\n@attribute a numeric\n@attribute k {u, v}\n@attribute y {0, 1}\n@data\n{0 3.5, 2 1}\n{}\n{1 v}\n"
    )
    data = TabularCsv(str(file), target="y").load()
    assert data.x.tolist() == [[3.5, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert data.y.tolist() == [1, 0, 0]
    for row in ("{3 1}", "{0 1, 0 2}", "{0 1", "{a 1}"):
        file.write_text(f"@relation s\n@attribute a numeric\n@attribute y {{0, 1}}\n@data\n{row}\n")
        with pytest.raises(DataError, match=r"s\.arff row 5: "):
            TabularCsv(str(file), target="y").load()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no @data"),
        ("@relation r\n@attribute a numeric\n", "has no @data"),
        ("@relation r\n@data\n1,2\n", "no @attribute before @data"),
        ("@relation r\n@attribute a numeric\n@data\n", "has no rows"),
        ("@relation r\n@attribute a numeric\n@attribute a real\n@data\n1,2\n", "row 3: attribute 'a' occurs twice"),
        ("@relation r\n@attribute a relational\n@data\n1\n", "row 2: attribute 'a' is of type 'relational'"),
        ("@relation r\n@attribute a {}\n@data\n1\n", "row 2: attribute 'a' needs {value, value, ...}"),
        ("@relation r\n@attribute a {1, 1.0}\n@data\n1\n", "row 2: attribute 'a' needs {value, value, ...}, each once"),
        ("@relation r\n1,2\n@data\n", "row 2: '1,2' is not part of an ARFF or KEEL header"),
        (
            "@relation r\n@attribute a real\n@attribute y {p, q}\n@data\n1,p\n2,r\n",
            "row 6: 'r' is not a value",
        ),
        ("@relation r\n@attribute a real\n@attribute y {p, q}\n@data\n1,p,2\n2,q\n", "row 5: 3 fields where the table"),
        ("@relation r\n@attribute a real\n@attribute y {p}\n@outputs z\n@data\n1,p\n", "@outputs names 'z', not an"),
    ],
)
def test_bad_headers_and_rows(tmp_path, text, says):
    file = tmp_path / "t.arff"
    file.write_text(text)
    with pytest.raises(DataError) as refused:
        TabularCsv(str(file), target="y").load()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_another_encoding_is_named(tmp_path):
    file = tmp_path / "t.arff"
    file.write_bytes("@relation r\n@attribute größe real\n@attribute y {p, q}\n@data\n1,p\n2,q\n".encode("latin-1"))
    with pytest.raises(DataError, match="not text in utf-8"):
        TabularCsv(str(file), target="y").load()
    assert TabularCsv(str(file), target="y", encoding="latin-1").load().x.shape == (2, 1)


def test_files_that_list_other_categories_are_refused(tmp_path):
    for name, listed in (("a", "u, v"), ("b", "v, w")):
        (tmp_path / f"{name}.arff").write_text(
            f"@relation r\n@attribute k {{{listed}}}\n@attribute y {{0, 1}}\n@data\nv,0\nv,1\n"
        )
    files = [str(tmp_path / "a.arff"), str(tmp_path / "b.arff")]
    with pytest.raises(DataError, match=r"column 'k' lists v, w, another file u, v; give categorical=\{k: "):
        TabularCsv(files, target="y").load()
    assert TabularCsv(files, target="y", categorical={"k": ["u", "v", "w"]}).load().x.shape == (4, 3)


def again(make, table, labels=True):
    """The rows of a source, read as rows to predict of a run that was trained on ``table``."""
    inputs = Inputs(table.x.shape[1:], "float32", columns=table.columns)
    problems = Problems()
    batches = list(make.new_rows(Expected(inputs, table.class_names, table.task), problems))
    assert not problems.lines
    x, y = (np.concatenate([getattr(one, name) for one in batches]) for name in ("x", "labels"))
    return x, y


@pytest.mark.parametrize("name", ["t.arff", "t.dat", "t.parquet", "t.arrow", "t.csv"])
def test_rows_to_predict_are_read_as_those_of_training(tmp_path, name):
    rows = [(1.5, "u", "p"), (2.5, "v", "q"), (None, "u", "q"), (3.5, None, "p")]
    written(tmp_path, {"a": [r[0] for r in rows], "k": [r[1] for r in rows], "y": [r[2] for r in rows]})
    lines = "\n".join(",".join("?" if cell is None else str(cell) for cell in row) for row in rows)
    for end in ("arff", "dat"):
        head = "@relation r\n@attribute a numeric\n@attribute k {u, v}\n@attribute y {p, q}\n@data\n"
        (tmp_path / f"t.{end}").write_text(head + lines)
    trained = TabularCsv(str(tmp_path / "t.arff"), target="y").load()
    args = {} if name.endswith(("arff", "dat")) else {"categorical": ["k"]}
    x, y = again(TabularCsv(str(tmp_path / name), target="y", **args), trained)
    assert np.array_equal(x, trained.x, equal_nan=True)
    assert y.tolist() == trained.y.tolist()
