"""Attributes of rows: what each source reads, and the groups they make."""

import csv
from pathlib import Path

import numpy as np
import pytest

from fedimb.config.compose import compose
from fedimb.config.load import config_sha
from fedimb.config.validate import validate
from fedimb.data.arrays import AttributeColumn, SourceData
from fedimb.data.store import Store, build_source, open_source
from fedimb.data.subgroups import Subgroup, alike_values, group_names, parse_subgroups, subgroups_of
from fedimb.errors import ConfigError, DataError

SEX = ["f", "m", "", "f", "m", "f"]
AGE = ["39", "40", "NA", "59.5", "60.0", "120"]


def store_with(tmp_path: Path, **columns: list[object]) -> Store:
    n = len(next(iter(columns.values())))
    found = {name: AttributeColumn.of(values) for name, values in columns.items()}
    data = SourceData(np.zeros((n, 2), np.float32), np.zeros(n, np.int64), ("a",), attributes=found)
    return Store.build(data, tmp_path / "store", "f")


def groups(store: Store, *entries: object) -> list[list[str]]:
    found = subgroups_of(store, parse_subgroups(list(entries)))
    return [[names[g] for g in of_row] for names, of_row in zip(found.names, found.of_row, strict=True)]


def test_groups_of_values_and_bands(tmp_path: Path) -> None:
    store = store_with(tmp_path, sex=SEX, age=AGE)
    [sex, age] = groups(store, "sex", {"column": "age", "bands": [40, 60]})
    assert sex == ["f", "m", "missing", "f", "m", "f"]
    assert age == ["under 40", "40 to 60", "missing", "40 to 60", "60 and over", "60 and over"]
    [declared] = groups(store, {"column": "sex", "values": ["m", "x"]})
    assert declared == ["other", "m", "missing", "other", "m", "other"]
    assert group_names(parse_subgroups([{"column": "sex", "values": ["m"]}, "site"]), ["linz", "va"]) == [
        ("m", "other", "missing"),
        ("linz", "va"),
    ]
    with pytest.raises(ConfigError, match=r"do not share their values: give values=\[\.\.\.\] or bands"):
        group_names(parse_subgroups(["sex"]), [])


def test_values_are_identifiers_and_those_that_look_alike_are_named(tmp_path: Path) -> None:
    store = store_with(tmp_path, code=[1, "1.0", 1.0, None, float("nan"), "F"], sex=["F", "f", "f", "F", "f", "f"])
    assert groups(store, "code")[0] == ["1", "1", "1", "missing", "missing", "F"]
    assert alike_values(store, parse_subgroups(["code", "sex"])) == [
        "data.subgroups: column 'sex' holds 'F' and 'f', which are different groups: "
        "spell them alike in the data if they mean one"
    ]


def test_a_store_keeps_attributes_and_its_content_hash_counts_them(tmp_path: Path) -> None:
    one, other = (store_with(tmp_path / name, sex=values) for name, values in (("a", SEX), ("b", SEX[::-1])))
    assert one.content_sha != other.content_sha
    again = Store.open(one.path)
    assert again.attributes["sex"].values == ("f", "m")
    np.testing.assert_array_equal(again.attributes["sex"].codes, [0, 1, -1, 0, 1, 0])


def test_no_subgroups_change_no_hash() -> None:
    plain = validate(compose(["data=digits"]))
    assert config_sha(plain) == config_sha(validate(compose(["data=digits", "data.subgroups=[]"])))
    assert config_sha(plain) != config_sha(validate(compose(["data=digits", "data.subgroups=[site]"])))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("sex", "give a list"),
        ([3], "give a column's name"),
        ([{"column": "age", "bands": [60, 40]}], "in rising order"),
        ([{"column": "age", "bands": ["x"]}], "give numbers"),
        ([{"column": "age", "bands": [1], "values": [2]}], "not both"),
        ([{"column": "sex", "values": ["f", "f"]}], "give each once"),
        ([{"column": "sex", "values": ["missing"]}], "'missing' and 'other' are added"),
        ([{"column": "site", "values": ["x"]}], "the groups of 'site' are the sites"),
    ],
)
def test_a_wrong_entry_is_refused(raw: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_subgroups(raw)


# The same six people in every source that reads attributes.


def npz(folder: Path, prefix: str = "") -> dict[str, object]:
    arrays = {"x": np.ones((6, 2), np.float32), "y": np.array([0, 1] * 3), "sex": np.array(SEX)}
    arrays["age"] = np.array([39, 40, np.nan, 59.5, 60, 120])
    np.savez(folder / "people.npz", **arrays)
    return {"path": str(folder / "people.npz")}


def medmnist(folder: Path) -> dict[str, object]:
    age = np.array([39, 40, np.nan, 59.5, 60, 120])
    arrays: dict[str, np.ndarray] = {}
    for part, rows in (("train", slice(0, 4)), ("test", slice(4, 6))):
        arrays[f"{part}_images"] = np.ones((6, 4, 4), np.uint8)[rows]
        arrays[f"{part}_labels"] = np.array([[0], [1]] * 3)[rows]
        arrays |= {f"{part}_sex": np.array(SEX)[rows], f"{part}_age": age[rows]}
    np.savez(folder / "people.npz", **arrays)
    return {"path": str(folder / "people.npz")}


def table(folder: Path) -> dict[str, object]:
    with (folder / "people.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["v", "sex", "age", "label"])
        out.writerows(zip(range(6), SEX, AGE, "010101", strict=True))
    return {"files": str(folder / "people.csv"), "target": "label", "drop": ["sex"]}


def parquet(folder: Path) -> dict[str, object]:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    ages = [39, 40, None, 59.5, 60, 120]
    columns = {"v": [0.0, 1, 2, 3, 4, 5], "sex": [s or None for s in SEX], "age": ages, "label": ["0", "1"] * 3}
    pq.write_table(pa.table(columns), folder / "people.parquet")
    return {"files": str(folder / "people.parquet"), "target": "label", "drop": ["sex"]}


def image_csv(folder: Path) -> dict[str, object]:
    from PIL import Image

    with (folder / "people.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "label", "sex", "age"])
        for i, (sex, age) in enumerate(zip(SEX, AGE, strict=True)):
            Image.new("RGB", (4, 4), (i, i, i)).save(folder / f"{i}.png")
            out.writerow([f"{i}.png", i % 2, sex, age])
    return {"path": str(folder / "people.csv")}


def huggingface(folder: Path) -> dict[str, object]:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["f", "m"])
    features = datasets.Features(
        {
            "v": datasets.Value("float32"),
            "sex": names,
            "age": datasets.Value("float32"),
            "label": datasets.Value("int64"),
        }
    )
    columns = {"v": [0.0] * 6, "sex": [0, 1, -1, 0, 1, 0], "age": [39, 40, None, 59.5, 60, 120], "label": [0, 1] * 3}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns, features=features)}).save_to_disk(folder / "hf")
    return {"path": str(folder / "hf"), "image": None, "features": ["v"]}


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("tabular_csv", table),
        ("tabular_csv", parquet),
        ("npz", npz),
        ("npz", medmnist),
        ("embeddings_npz", npz),
        ("image_csv", image_csv),
        ("huggingface", huggingface),
    ],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_every_source_reads_the_same_people(name: str, made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDIMB_CACHE_DIR", str(tmp_path / "cache"))
    source = {"name": name, **made(tmp_path)}
    store = open_source(source | {"attributes": ["sex", "age"]})
    [sex, age] = groups(store, "sex", {"column": "age", "bands": [40, 60]})
    assert sex == ["f", "m", "missing", "f", "m", "f"]
    assert age == ["under 40", "40 to 60", "missing", "40 to 60", "60 and over", "60 and over"]
    if made is not medmnist:  # whose arrays beside its own are refused where they look like one of them
        assert not open_source(source).attributes
    with pytest.raises(DataError, match=r"data\.subgroups.*'(train_)?sx'.*Did you mean '(train_)?sex'"):
        build_source(name, {k: v for k, v in source.items() if k != "name"}, "refuse", ["sx"]).load()


def test_a_header_entry_of_dicom(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from tiny_dicom import dicom

    for i, (sex, age) in enumerate((("F", "045Y"), ("M", "006M"), ("", None))):
        entries = {"PatientID": str(i), "PatientSex": sex} | ({"PatientAge": age} if age else {})
        (tmp_path / f"{i}.dcm").write_bytes(dicom(**entries))
    (tmp_path / "list.csv").write_text("file,label,ward\n0.dcm,0,A\n1.dcm,1,B\n2.dcm,0,A\n")
    given = {"path": str(tmp_path), "labels": str(tmp_path / "list.csv")}
    data = build_source("dicom", given, "refuse", ["PatientSex", "ward", "PatientAge"]).load()
    assert data.attributes["PatientSex"].codes.tolist() == [0, 1, -1]
    assert data.attributes["PatientAge"].values == ("45", "0.5")
    assert data.attributes["ward"].codes.tolist() == [0, 1, 0]
    for wrong, said in (("PatientSx", "Did you mean 'PatientSex'"), ("PatientName", "names a person")):
        with pytest.raises(DataError, match=said):
            build_source("dicom", given, "refuse", [wrong]).load()


def test_subgroups_are_compared_and_hashed_by_value() -> None:
    assert Subgroup("age", (40.0,)) == parse_subgroups([{"column": "age", "bands": [40]}])[0]
