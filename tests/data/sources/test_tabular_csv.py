import logging
import os
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedimb.data.identifiers import identifier
from fedimb.data.paths import VARIABLE
from fedimb.data.prepare import prepare
from fedimb.data.sources.table_target import Target
from fedimb.data.sources.tabular_csv import TabularCsv
from fedimb.errors import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def columns(source, data):
    """Feature name -> column of x, as a list."""
    return dict(zip(source.feature_names, data.x.T.tolist(), strict=True))


def test_numbers_categories_and_indicators_become_columns(folder):
    (folder / "t.csv").write_text(
        "\ufeffage, kind,sugar,who,label\n50,b,0,x,no\n\n?,a,1.5,y,yes\n61,,NA,x,yes\n", encoding="utf-8"
    )
    source = TabularCsv(
        files="t.csv", target="label", categorical=["kind"], missing_values={"sugar": [0]}, patient="who"
    )
    data = source.load()
    assert source.feature_names == (
        *("age", "kind=a", "kind=b", "sugar"),
        *("age missing", "kind missing", "sugar missing"),
    )
    got = columns(source, data)
    assert str(got["age"]) == "[50.0, nan, 61.0]"
    assert (got["kind=a"], got["kind=b"]) == ([0, 1, 0], [1, 0, 0])
    assert str(got["sugar"]) == "[nan, 1.5, nan]"
    assert (got["age missing"], got["kind missing"], got["sugar missing"]) == ([0, 1, 0], [0, 0, 1], [1, 0, 1])
    assert data.scaled.tolist() == [True, False, False, True, False, False, False]
    assert data.x.dtype == np.float32
    assert (data.class_names, data.y.tolist()) == (("no", "yes"), [0, 1, 1])
    assert data.patients.tolist() == [0, 1, 0]
    assert data.sites is None
    assert data.official_test is None


def test_a_number_matches_every_spelling_and_text_one(folder):
    (folder / "t.csv").write_text("a,b,label\n0,0,1\n0.0,0.0,0\n00,00,1.0\n")
    source = TabularCsv(files="t.csv", target="label", missing_values={"a": [0], "b": ["0"]}, indicators=["b", "a"])
    data = source.load()
    got = columns(source, data)
    assert (got["a missing"], got["b missing"]) == ([1, 1, 1], [1, 0, 0])
    assert (data.class_names, data.y.tolist()) == (("0", "1"), [1, 0, 1])


@pytest.mark.parametrize("indicators", [False, ["a"]])
def test_the_indicators_asked_for_are_there_whatever_the_rows(folder, indicators):
    (folder / "t.csv").write_text("a,b,label\n1,,x\n2,3,y\n")
    source = TabularCsv(files="t.csv", target="label", indicators=indicators)
    source.load()
    assert source.feature_names == ("a", "b", *(["a missing"] if indicators else []))


def test_a_category_of_a_row_left_out_makes_no_column(folder):
    (folder / "t.csv").write_text("kind,a,label\n10,1,x\n9,1,y\nodd,bad,y\n")
    source = TabularCsv(files="t.csv", target="label", categorical={"kind": None}, on_bad="skip")
    assert source.load().x.tolist() == [[0, 1, 1], [1, 0, 1]]
    assert source.feature_names == ("kind=9", "kind=10", "a")


def test_one_file_per_site_in_any_column_order(folder):
    (folder / "n.csv").write_text("a,who,label\n1,p1,x\n2,p1,y\n")
    (folder / "s.csv").write_text("label,who,a\ny,p1,3\nx,p2,4\n")
    source = TabularCsv(files={"north": "n.csv", "south": "s.csv"}, target="label", patient="who")
    data = source.load()
    assert data.x.tolist() == [[1], [2], [3], [4]]
    assert (data.site_names, data.sites.tolist()) == (("north", "south"), [0, 0, 1, 1])
    assert data.patients.tolist() == [0, 0, 1, 2]  # p1 of the south is another person


def test_sites_splits_and_patients_in_columns(folder):
    (folder / "t.csv").write_text("a,h,s,label\n1,10,train,x\n2,9,Test,y\n3,10,val,y\n4,9,test,x\n")
    args = {"files": ["t.csv"], "target": "label", "site_column": "h", "split_column": "s"}
    data = TabularCsv(**args).load()
    assert (data.site_names, data.sites.tolist()) == (("9", "10"), [1, 0, 1, 0])
    assert data.official_test.tolist() == [False, True, False, True]
    assert data.x.tolist() == [[1], [2], [3], [4]]
    assert TabularCsv(**args, site_names=["11", "10", "9"]).load().sites.tolist() == [1, 2, 1, 2]


@given(
    label=st.floats(-5, 5) | st.integers(-5, 5), cuts=st.lists(st.integers(-4, 4), min_size=1, max_size=3, unique=True)
)
@settings(max_examples=25, deadline=None)
def test_thresholds_count_those_at_or_below_the_label(label, cuts):
    cuts = sorted(cuts)
    rule = Target([str(c) for c in range(len(cuts) + 1)], thresholds=cuts)
    assert rule(str(label)) == str(sum(cut <= label for cut in cuts))


def test_label_rules(folder):
    assert [Target(target_map={"0": "well", "1": "ill", "2": "ill"})(v) for v in ("0.0", "1", "2")] == [
        *("well", "ill", "ill")
    ]
    assert Target(target_map={"10": "c", "9": "b", "1.0": "a"}).classes == ["a", "b", "c"]
    assert Target(["b", "a"], {"1": "a", "0": "b"}).classes == ["b", "a"]
    assert Target(["2", "x"])("2.0") == "2"
    assert [identifier(v) for v in (1, 1.0, "1.0", "-0", "1e3", "a", "inf", 0.5)] == [
        *("1", "1", "1", "0", "1e3", "a", "inf", "0.5")
    ]
    with pytest.raises(DataError, match="label 'nan' is not a number"):
        Target(["a", "b"], thresholds=[1])("nan")


HEART = {"target": "num", "classes": ["mild", "severe"], "thresholds": [3]}


@pytest.fixture
def hospitals(folder):
    (folder / "a.csv").write_text("age,num\n50,0\n60,3\n70,4\n")
    (folder / "b.csv").write_text("age,num\n50,0\n60,1\n")
    return {"files": {"a": "a.csv", "b": "b.csv"}} | HEART


def test_a_site_whose_labels_cannot_express_a_class_is_refused(hospitals):
    says = r"^site 'b' cannot express class 'severe': its labels are 0, 1\. Leave the site out.*label_values=\{b: "
    with pytest.raises(DataError, match=says):
        TabularCsv(**hospitals, require_all_classes=True).load()
    with pytest.raises(DataError, match=says):
        TabularCsv(**hospitals, label_values={"b": [0, 1]}).load()


def test_a_site_that_records_the_class_and_has_no_such_row_passes(hospitals):
    data = TabularCsv(**hospitals, require_all_classes=True, label_values={"b": [0, 1, 2, 3, 4]}).load()
    assert data.sites.tolist() == [0, 0, 0, 1, 1]


def test_a_label_that_its_site_does_not_record_is_a_bad_row(hospitals):
    with pytest.raises(DataError, match=r"a\.csv row 4: label '4' is not one that site 'a' records \(0, 3\)"):
        TabularCsv(**hospitals, label_values={"a": [0, 3]}).load()


def test_a_class_absent_at_a_site_is_said(hospitals, caplog):
    with caplog.at_level(logging.WARNING):
        TabularCsv(**hospitals).load()
    assert [r.getMessage() for r in caplog.records] == ["site 'b' has no row of class severe"]


def test_the_fingerprint_follows_the_content(hospitals, folder):
    before = TabularCsv(**hospitals).fingerprint()
    assert TabularCsv(**hospitals).fingerprint() == before
    (folder / "b.csv").write_text("age,num\n50,0\n60,2\n")
    assert TabularCsv(**hospitals).fingerprint() != before


def test_large_files_are_told_apart_by_size_and_time(hospitals, monkeypatch, folder):
    monkeypatch.setattr("fedimb.data.sources.files._SMALL", 3)
    before = TabularCsv(**hospitals).fingerprint()
    assert TabularCsv(**hospitals).fingerprint() == before
    (folder / "b.csv").write_text("age,num\n50,0\n60,1\n70,1\n")
    assert TabularCsv(**hospitals).fingerprint() != before


def heart(name):
    return yaml.safe_load((files("fedimb.configs") / "data" / f"{name}.yaml").read_text())


@pytest.fixture
def real():
    root = os.environ.get(VARIABLE)
    if not root or not (Path(root) / "heart-disease").is_dir():
        pytest.skip(f"the heart disease files are not in ${VARIABLE}/heart-disease")


def source_of(name, **change):
    args = heart(name)["source"] | change
    return TabularCsv(**{key: value for key, value in args.items() if key != "name"})


@pytest.mark.usefixtures("real")
def test_four_hospitals_rows_and_labels():
    source = source_of("heart_four")
    data = source.load()
    assert data.site_names == ("cleveland", "hungary", "switzerland", "va")
    assert np.bincount(data.sites).tolist() == [303, 294, 123, 200]
    assert [np.bincount(data.y[data.sites == s]).tolist() for s in range(4)] == [
        *([164, 139], [188, 106], [8, 115], [51, 149])
    ]
    assert data.x.shape == (920, 28)


@pytest.mark.usefixtures("real")
def test_each_hospital_holds_out_a_fifth_of_each_class():
    federation = prepare(heart("heart_four"), {"name": "by_column", "column": "site"}, 4, seed=0)
    y, sites = federation.store.y[federation.test], federation.store.sites[federation.test]
    assert [np.bincount(y[sites == s]).tolist() for s in range(4)] == [[33, 28], [38, 21], [2, 23], [10, 30]]


@pytest.mark.usefixtures("real")
def test_severe_rows_and_missing_values():
    source = source_of("heart_severe")
    data = source.load()
    assert np.bincount(data.y).tolist() == [626 - 135, 135]
    assert [int(data.y[data.sites == s].sum()) for s in range(3)] == [48, 35, 52]
    got = {name: data.x[:, j] for j, name in enumerate(source.feature_names)}
    missing = {n: [int(got[f"{n} missing"][data.sites == s].sum()) for s in range(3)] for n in ("chol", "trestbps")}
    assert missing == {"chol": [0, 123, 56], "trestbps": [0, 2, 57]}
    assert [int(got["thalach missing"][data.sites == s].sum()) for s in range(3)] == [0, 1, 53]
    assert [int(got["slope missing"][data.sites == s].sum()) for s in range(3)] == [0, 17, 102]
    assert [int(got["thal missing"][data.sites == s].sum()) for s in range(3)] == [2, 52, 166]
    assert [int(got["ca missing"][data.sites == s].sum()) for s in range(3)] == [4, 118, 200]
    assert np.array_equal(np.isnan(got["ca"]), got["ca missing"] == 1)


@pytest.mark.usefixtures("real")
def test_hungary_is_refused_in_the_severe_task():
    four = heart("heart_severe")["source"]["files"] | {"hungary": "heart-disease/processed.hungarian.data"}
    with pytest.raises(DataError, match=r"site 'hungary' cannot express class 'severe': its labels are 0, 1\. "):
        source_of("heart_severe", files=four).load()


@pytest.mark.usefixtures("real")
def test_the_five_folds_of_the_severe_task_are_disjoint_and_cover_all():
    data, tests = heart("heart_severe"), []
    for fold in range(5):
        data["test"]["fold"] = fold
        federation = prepare(data, {"name": "by_column", "column": "site"}, 3, seed=fold)
        tests.append(federation.test)
        assert sorted(np.concatenate([*federation.train, federation.test])) == list(range(626))
        rows = federation.store.x[federation.train[1]]
        assert np.isnan(rows).any()
        assert np.isfinite(federation.scaling(rows)).all()
    assert sorted(np.concatenate(tests)) == list(range(626))
    assert [int(federation.store.y[rows].sum()) for rows in tests] == [27] * 5
