"""Rows beside their arrays: each row of a source has the place and the patient that its files give it."""

import io
from pathlib import Path

import numpy as np
import pytest
from tiny_images import image, packed, put

from fedimb.deploy.registered_data.data_settings import source_settings
from fedimb.deploy.registered_data.source_records import absolute_paths, find_record, read_source
from fedimb.errors import ConfigError, DataError
from fedimb.registry import isolated, register


def places(reading):
    return [row.place.rpartition("/")[2] for row in reading.rows]


def patients(reading):
    return [row.patient for row in reading.rows]


def agree(reading):
    """The source's own numbers for patients part the rows as the ids do."""
    numbers = reading.data.patients.tolist()
    assert len({*zip(numbers, patients(reading), strict=True)}) == len({*numbers}) == len({*patients(reading)})


def test_a_table_with_bad_rows_and_blank_lines(tmp_path):
    text = "who,age,label\nA,1,x\n\nB: 2,zwei,y\nB: 2,3,y\nC,4,x,9\nD,5,y\n"
    (tmp_path / "t: 1.csv").write_text(text)
    found = read_source(
        {
            "name": "tabular_csv",
            "files": [str(tmp_path / "t: 1.csv")],
            "target": "label",
            "patient": "who",
            "on_bad": "skip",
        }
    )
    assert places(found) == ["t: 1.csv row 2", "t: 1.csv row 5", "t: 1.csv row 7"]
    assert patients(found) == ["A", "B: 2", "D"]
    assert found.columns == ("age",)
    agree(found)


def test_the_same_number_at_two_sites_is_two_people(tmp_path):
    for site in ("a", "b"):
        (tmp_path / f"{site}.csv").write_text("who,age,label\n1,1,x\n2,2,y\n")
    files = {site: str(tmp_path / f"{site}.csv") for site in ("a", "b")}
    found = read_source({"name": "tabular_csv", "files": files, "target": "label", "patient": "who"})
    assert patients(found) == ["a/1", "a/2", "b/1", "b/2"]
    agree(found)
    assert len({found.record(i) for i in range(4)}) == 4
    assert [path.name for path in found.files] == ["a.csv", "b.csv"]


def test_listed_images_in_a_folder_and_a_zip(tmp_path):
    pictures = {"one.png": image(1), "two.png": image(2), "bad.png": b"none"}
    put(tmp_path, **{name.replace(".", "_"): data for name, data in pictures.items()})
    (tmp_path / "l.csv").write_text("path,label,patient\none.png,x,p1\nbad.png,x,p2\ntwo.png,y,p3\n")
    found = read_source({"name": "image_csv", "path": str(tmp_path / "l.csv"), "on_bad": "skip"})
    assert places(found) == ["l.csv row 2", "l.csv row 4"]
    assert patients(found) == ["p1", "p3"]
    assert {path.name for path in found.files} == {"l.csv", *pictures}
    kept = found.subset(np.array([False, True]))  # a withdrawal: every column goes with its row
    assert (places(kept), kept.data.row_ids.tolist()) == (["l.csv row 4"], ["two.png"])
    packed(tmp_path / "z.zip", pictures)
    words = {"name": "image_csv", "path": str(tmp_path / "l.csv"), "root": str(tmp_path / "z.zip"), "on_bad": "skip"}
    zipped = read_source(words)
    assert [path.name for path in zipped.files] == ["l.csv", "z.zip"]
    assert [zipped.record(i) for i in range(2)] == [found.record(i) for i in range(2)]


def test_parts_of_an_npz(tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    x[1, 0] = np.inf
    arrays = {"train_images": x, "train_labels": [0, 1, 1], "test_images": x[:1], "test_labels": [0]}
    np.savez(tmp_path / "m.npz", **arrays)
    found = read_source({"name": "npz", "path": str(tmp_path / "m.npz"), "on_bad": "skip"})
    assert places(found) == ["m.npz train_images[0]", "m.npz train_images[2]", "m.npz test_images[0]"]
    assert patients(found) == [None] * 3
    assert found.record(0) != found.record(2)  # the same values, one of the test set
    np.savez(tmp_path / "p.npz", x=np.eye(3, dtype=np.float32), y=[0, -1, 1])
    assert places(read_source({"name": "npz", "path": str(tmp_path / "p.npz"), "on_bad": "skip"})) == [
        "p.npz x[0]",
        "p.npz x[2]",
    ]


def test_dicom_patients(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    source = Path(pydicom.data.get_testdata_file("CT_small.dcm", download=False))
    (tmp_path / "scans").mkdir()
    for name, patient in (("a", " Müller^1"), ("b", "7"), ("c", ""), ("d", "7")):
        header = pydicom.dcmread(source)
        header.SpecificCharacterSet, header.PatientID = "ISO_IR 100", patient
        out = io.BytesIO()
        header.save_as(out)
        (tmp_path / "scans" / f"{name}.dcm").write_bytes(out.getvalue())
    rows = "".join(f"{name}.dcm,{label}\n" for name, label in zip("abcd", "xyxy", strict=True))
    (tmp_path / "l.csv").write_text("file,label\n" + rows)
    found = read_source(
        {"name": "dicom", "path": str(tmp_path / "scans"), "labels": str(tmp_path / "l.csv"), "on_bad": "skip"}
    )
    assert patients(found) == ["Müller^1", "7", "7"]
    agree(found)


@pytest.mark.slow
def test_a_saved_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    table = {"age": [1.0, 2.0, None], "label": ["x", "y", ""], "who": ["p", "q", "q"]}
    datasets.Dataset.from_dict(table).save_to_disk(str(tmp_path / "hf"))
    words = {"name": "huggingface", "path": str(tmp_path / "hf"), "image": None, "features": ["age"], "on_bad": "skip"}
    found = read_source({**words, "patient": "who"})
    assert patients(found) == ["p", "q"]  # the third has no label
    assert places(found) == ["hf train[0]", "hf train[1]"]
    assert {"dataset_info.json", "state.json"} < {path.name for path in found.files}


def test_a_source_of_somebody_elses(tmp_path):
    from fedimb.data.arrays import SourceData

    class Toy:
        def __init__(self, path: str, on_bad: str = "refuse") -> None:
            self.path = path

        def load(self):
            return SourceData(np.zeros((2, 1), np.float32), np.array([0, 1]), ("a", "b"))

    (tmp_path / "f.bin").touch()
    with isolated():
        register("source", "toy_records")(Toy)
        found = read_source({"name": "toy_records", "path": str(tmp_path)})
    assert places(found) == ["toy_records record 1", "toy_records record 2"]
    assert [path.name for path in found.files] == ["f.bin"]


def test_which_record_is_meant():
    names = ["/d/a.csv row 1", "/d/a.csv row 11", "/e/a.csv row 2", "/d/b.csv row 2", "/d/x.npz x[5]", "/p/cat/1.png"]
    assert find_record(names, "11") == 1
    assert find_record(names, "1") == 0
    assert find_record(names, "5") == 4
    assert find_record(names, "cat/1.png") == 5
    assert find_record(names, "/e/a.csv row 2") == 2
    for text in ("2", "a.csv", "", "12"):
        with pytest.raises(ConfigError, match=r"2 records|no record"):
            find_record(names, text)


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "l.csv"):
        (tmp_path / name).write_text("x,label\n1,a\n")
    words = {"name": "tabular_csv", "files": {"s": "a.csv"}, "labels": "l.csv", "target": "label", "size": [1, 2]}
    made = absolute_paths(words)
    assert made["files"] == {"s": str(tmp_path / "a.csv")}
    assert made["labels"] == str(tmp_path / "l.csv")
    assert (made["size"], made["target"]) == ([1, 2], "label")
    with pytest.raises(DataError, match=r"no 'gone\.csv'"):
        absolute_paths({**words, "files": ["gone.csv"]})
    assert source_settings("st-anna", "a.csv", settings=["target=label"])["files"] == {
        "st-anna": str(tmp_path / "a.csv")
    }
