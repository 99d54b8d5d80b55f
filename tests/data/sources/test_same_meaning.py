"""Input that reads without an error and could mean something else: narrow floats, large marks, ids, moved files."""

import json
import shutil

import numpy as np
import pytest

from fedimb.data.sources.image_csv import ImageCsv
from fedimb.data.sources.leaf_json import LeafJson
from fedimb.data.sources.npz import Npz
from fedimb.data.sources.shards import Shards
from fedimb.data.sources.sql import Sql
from fedimb.data.sources.table_file import Layout, read_table
from fedimb.data.sources.tabular_csv import TabularCsv
from fedimb.data.store import open_source
from fedimb.errors import DataError


def csv(folder, text):
    (folder / "t.csv").write_text(text)
    return str(folder / "t.csv")


def typed(folder, suffix="parquet", **columns):
    pa = pytest.importorskip("pyarrow")
    table = pa.table(columns)
    path = folder / f"t.{suffix}"
    if suffix == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    return str(path)


def duckdb(folder, query):
    db = pytest.importorskip("duckdb")
    pytest.importorskip("duckdb_engine")
    with db.connect(str(folder / "d.duckdb")) as connection:
        connection.execute(f"create table t as {query}")
    return f"duckdb:///{folder / 'd.duckdb'}"


def npz(folder, **arrays):
    n = len(arrays["y"])
    np.savez(folder / "a.npz", x=np.arange(2 * n, dtype=np.float32).reshape(n, 2), **arrays)
    return str(folder / "a.npz")


def test_a_narrow_float_is_the_decimal_that_was_written(tmp_path):
    narrow = np.array([0.5, 0.7, 0.9, -1.1], np.float32)
    path = typed(tmp_path, label=narrow, a=narrow)
    data = TabularCsv(path, target="label", classes=["low", "high"], thresholds=[0.7], missing=[-1.1], on_bad="skip")
    found = data.load()
    assert found.y.tolist() == [0, 1, 1]  # 0.699999988 as float64
    data = TabularCsv(typed(tmp_path, a=narrow, label=[0, 1, 0, 1]), target="label", missing=[-1.1]).load()
    assert np.isnan(data.x[:, 0]).tolist() == [False, False, False, True]


def test_a_narrow_float_of_duckdb_is_the_decimal_that_was_written(tmp_path):
    url = duckdb(tmp_path, "select * from (values (0.5::float, 1), (0.7::float, 2), (0.9::float, 3)) v(label, a)")
    data = Sql("select * from t", target="label", url=url, classes=["low", "high"], thresholds=[0.7]).load()
    assert sorted(data.y.tolist()) == [0, 1, 1]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("coded", [False, True])
def test_ids_in_narrow_floats_are_refused_where_these_merge(tmp_path, suffix, coded):
    pa = pytest.importorskip("pyarrow")
    ids = pa.array(np.array([16777217, 16777216, 3, 5], np.float32))
    path = typed(tmp_path, suffix, who=ids.dictionary_encode() if coded else ids, a=[1, 2, 3, 4], label=[0, 1, 0, 1])
    with pytest.raises(DataError, match=r"row 1: column 'who' .* 16777216: from 2\^24"):
        TabularCsv(path, target="label", patient="who").load()


def test_ids_in_narrow_floats_of_duckdb_are_refused(tmp_path):
    url = duckdb(tmp_path, "select 16777217::float as who, 1 as a, 'x' as label")
    with pytest.raises(DataError, match=r"column 'who' .* 16777216: floats merge"):
        Sql("select * from t", target="label", url=url, patient="who").load()


def test_a_large_mark_is_not_its_neighbour(tmp_path):
    path = csv(tmp_path, "code,label\n999000011000000104,0\n999000011000000103,1\n7,0\n")
    data = TabularCsv(path, target="label", categorical=["code"], missing=[999000011000000103]).load()
    assert data.columns.categories["code"] == ("7", "999000011000000104")
    assert data.x[:, 2].tolist() == [0, 1, 0]


def test_a_mark_in_quotes_is_also_the_number_of_a_typed_column(tmp_path):
    path = typed(tmp_path, a=[-9.0, 2.0, 3.0], label=[0, 1, 0])
    data = TabularCsv(path, target="label", missing=["-9"]).load()
    assert np.isnan(data.x[:, 0]).tolist() == [True, False, False]


def test_thousands_signs_count_in_the_ids_of_patients_and_sites(tmp_path):
    path = csv(tmp_path, "who;where;a;label\n1.000;2.000;1;0\n1;2;2;1\n1000;2000;3;0\n")
    settings = {"delimiter": ";", "decimal": ",", "thousands": "."}
    data = TabularCsv(path, target="label", patient="who", site_column="where", **settings).load()
    assert data.patients.tolist() == [0, 1, 0]
    assert data.site_names == ("2", "2000")


@pytest.mark.parametrize("value", ["7.111::double", "7.111::decimal(9, 3)"])
def test_numbers_of_a_query_are_not_read_as_text_with_thousands_signs(tmp_path, value):
    url = duckdb(tmp_path, f"select {value} as a, 'x' as label")
    with pytest.raises(DataError, match="column 'a' holds numbers, not their text"):
        Sql("select * from t", target="label", url=url, decimal=",", thousands=".").load()


@pytest.mark.parametrize("label", ["inf", "-inf", "1e400"])
def test_a_threshold_gives_no_class_to_infinity(tmp_path, label):
    path = csv(tmp_path, f"label,a\n{label},1\n0,2\n2,3\n")
    with pytest.raises(DataError, match=f"row 2: label '{label}' is not a number"):
        TabularCsv(path, target="label", classes=["low", "high"], thresholds=[1]).load()


@pytest.mark.parametrize("mark", ["nan", "None", "NA", "?", "n/a"])
def test_a_mark_for_a_missing_patient_is_nobody(tmp_path, mark):
    who = ["p1", mark, mark, "p2"]
    with pytest.raises(DataError, match=r"2 bad rows: .* patients\[1\]"):
        Npz(npz(tmp_path, y=np.array([0, 1, 0, 1]), patients=np.array(who))).load()
    Image = pytest.importorskip("PIL.Image")
    for i in range(4):
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(tmp_path / f"{i}.png")
    path = csv(tmp_path, "path,label,patient\n" + "".join(f"{i}.png,{i % 2},{p}\n" for i, p in enumerate(who)))
    with pytest.raises(DataError, match=r"2 bad rows: .* row 3.* names nobody"):
        ImageCsv(path, mode="L").load()
    path = csv(tmp_path, "a,label,who\n" + "".join(f"{i},{i % 2},{p}\n" for i, p in enumerate(who)))
    with pytest.raises(DataError, match=r"2 bad rows: .* row 3"):
        TabularCsv(path, target="label", patient="who").load()


def test_patients_of_arrays_that_look_alike_are_reported(tmp_path):
    data = Npz(npz(tmp_path, y=np.array([0, 1, 0]), patients=np.array(["p1", "p1 ", "p2"]))).load()
    assert [finding.name for finding in data.findings] == ["look_alike_names"]
    assert not Npz(npz(tmp_path, y=np.array([0, 1]), patients=np.array(["p1", "p2"]))).load().findings


def test_one_hot_columns_are_named_in_their_order(tmp_path):
    path = npz(tmp_path, y=np.eye(2)[[0, 1, 0]])
    data = Npz(path, labels="onehot", class_names=["1", "0"]).load()
    assert [data.class_names[c] for c in data.y] == ["1", "0", "1"]
    path = npz(tmp_path, y=np.eye(3)[[2, 1, 2]])  # no row has column 0
    with pytest.raises(DataError, match="columns 0 to 2"):
        Npz(path, labels="onehot", class_names={1: "a", 2: "b", 3: "c"}).load()
    data = Npz(path, labels="onehot", class_names={0: "a", 1: "b", 2: "c"}).load()
    assert [data.class_names[c] for c in data.y] == ["c", "b", "c"]


def test_a_shard_moved_to_the_test_set_or_renamed_is_other_data(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    for k, name in enumerate(("train/0", "train/1", "test/0")):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(tmp_path / "d" / f"{name}.npz", x=np.full((2, 2), k, np.float32), y=np.array([0, 1]))
    source = {"name": "shards", "path": str(tmp_path / "d")}
    assert int(open_source(source).official_test.sum()) == 2
    shutil.move(tmp_path / "d/train/1.npz", tmp_path / "d/test/1.npz")
    assert int(open_source(source).official_test.sum()) == 4
    before = Shards(str(tmp_path / "d")).fingerprint()
    shutil.move(tmp_path / "d/test/1.npz", tmp_path / "d/test/7.npz")
    assert Shards(str(tmp_path / "d")).fingerprint() != before
    assert open_source(source).site_names == ("0", "7")


def test_a_leaf_file_moved_to_the_test_set_is_other_data(tmp_path):
    for name in ("train/a", "train/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        rows = {"x": [[1.0], [2.0]], "y": [0, 1]}
        (tmp_path / f"{name}.json").write_text(
            f'{{"users": ["{name}"], "num_samples": [2], "user_data": {{"{name}": {rows}}}}}'.replace("'", '"')
        )
    before = LeafJson(str(tmp_path)).fingerprint()
    (tmp_path / "test").mkdir()
    shutil.move(tmp_path / "train/b.json", tmp_path / "test/b.json")
    assert LeafJson(str(tmp_path)).fingerprint() != before


@pytest.mark.parametrize("mark", ["-1", "255"])
def test_a_mark_for_no_label_is_no_class_of_pictures_and_tables(tmp_path, mark):
    Image = pytest.importorskip("PIL.Image")
    labels = ["0", "1", mark, "2"]
    for i in range(4):
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(tmp_path / f"{i}.png")
    path = csv(tmp_path, "path,label\n" + "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels)))
    with pytest.raises(DataError, match=f"label {mark} stands beside ids 0 to 2"):
        ImageCsv(path, mode="L").load()
    assert len(ImageCsv(path, mode="L", classes=("0", "1", "2", mark)).load().class_names) == 4
    path = csv(tmp_path, "a,label\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)))
    with pytest.raises(DataError, match=f"label {mark} stands beside ids 0 to 2"):
        TabularCsv(path, target="label").load()
    assert len(TabularCsv(path, target="label", classes=["0", "1", "2", mark]).load().class_names) == 4
    assert TabularCsv(path, target="label", missing=[int(mark)], on_bad="skip").load().class_names == ("0", "1", "2")


@pytest.mark.parametrize("name", ["Patient", "patient_id", "Patients"])
def test_a_misspelt_column_of_patients_is_not_passed_over(tmp_path, name):
    Image = pytest.importorskip("PIL.Image")
    for i in range(2):
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(tmp_path / f"{i}.png")
    path = csv(tmp_path, f"path,label,{name}\n0.png,0,7\n1.png,1,7\n")
    with pytest.raises(DataError, match=f"column '{name}', which is not read; .*patient_column={name}"):
        ImageCsv(path, mode="L").load()
    assert ImageCsv(path, mode="L", patient_column=name).load().patients.tolist() == [0, 0]
    assert ImageCsv(path, mode="L", patient_column=None).load().patients is None


def test_one_hot_parts_have_the_same_columns(tmp_path):
    x = np.zeros((3, 4, 4), np.uint8)
    arrays = {f"{part}_images": x for part in ("train", "test")}
    np.savez(tmp_path / "p.npz", train_labels=np.eye(2)[[0, 1, 0]], test_labels=np.eye(3)[[0, 1, 0]], **arrays)
    with pytest.raises(DataError, match="test_labels has 3 columns per row but earlier parts have 2 columns"):
        Npz(str(tmp_path / "p.npz"), labels="onehot").load()


def test_a_label_that_means_missing_is_asked_about_before_thresholds_make_it_a_class(tmp_path):
    scores = [i % 7 / 2 for i in range(60)]

    def found(marks):
        rows = "\n".join(f"{i % 5},{score}" for i, score in enumerate([*scores, *marks]))
        data = TabularCsv(
            csv(tmp_path, f"a,score\n{rows}\n"), target="score", classes=["mild", "severe"], thresholds=[2]
        )
        return [(one.name, one.place) for one in data.load().findings]

    assert found([-9, -9]) == [("sentinels", "column 'score'")]
    assert found([999]) == [("sentinels", "column 'score'")]
    assert found([]) == []


@pytest.mark.parametrize("labels", [[True, False, 1], [1, 0, True]])
def test_truth_values_beside_numbers_are_not_further_classes(tmp_path, labels):
    held = {"u": {"x": [[0.5], [1.5], [2.5]], "y": labels}}
    (tmp_path / "a.json").write_text(json.dumps({"users": ["u"], "num_samples": [3], "user_data": held}))
    with pytest.raises(DataError, match=r"labels are truth values in some rows .* and others elsewhere"):
        LeafJson(str(tmp_path / "a.json")).load()


def test_row_ids_are_identifiers_like_all_others(tmp_path):
    text = "id,a,label\n1,0.5,x\n1.0,0.7,y\n"
    with pytest.raises(DataError, match="row id '1' stands for an earlier row already"):
        TabularCsv(csv(tmp_path, text), target="label", id_column="id").load()
    path = typed(tmp_path, id=["1", "1.0", "2"], a=[0.5, 0.7, 0.9], label=["x", "y", "x"])
    with pytest.raises(DataError, match="row id '1' stands for an earlier row already"):
        TabularCsv(path, target="label", id_column="id").load()


def test_a_blank_line_in_a_table_of_one_column_is_no_row_less(tmp_path):
    path = csv(tmp_path, "\na\n0.5\n\n0.7\n\n")
    with pytest.raises(DataError, match="row 4 is blank in a table of one column: write NA"):
        list(read_table(path, Layout())[1])
    path = csv(tmp_path, "\na\n0.5\n0.7\n\n\n")
    assert [fields for _, fields in read_table(path, Layout())[1]] == [["0.5"], ["0.7"]]
    path = csv(tmp_path, "a,b\n0.5,1\n\n0.7,2\n")
    assert len(list(read_table(path, Layout())[1])) == 2
