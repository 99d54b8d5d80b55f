"""One person, and one class, however it is spelled: the same in every source, and never on two sides of a split."""

import csv
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fedimb.data.inputs import Inputs, TableColumns
from fedimb.data.new_rows import Expected
from fedimb.data.problems import Problems
from fedimb.data.sources.embeddings_npz import EmbeddingsNpz
from fedimb.data.sources.image_csv import ImageCsv
from fedimb.data.sources.image_folder import ImageFolder
from fedimb.data.sources.leaf_json import LeafJson
from fedimb.data.sources.npz import Npz
from fedimb.data.sources.shards import Shards
from fedimb.data.sources.tabular_csv import TabularCsv
from fedimb.data.split import split_test
from fedimb.errors import DataError

LONG = (1234567890123456789, 1234567890123456790)  # one in float64


def people(n=12):
    """(person, spelling) of each row: each person twice, under two spellings; some ids differ only beyond float64."""
    ids = [*LONG, *range(100, 100 + n - 3), "P1"]
    rows = [(one, str(one)) for one in ids]
    return rows + [(one, one if isinstance(one, str) else f"{one}.0") for one in ids]


def labels(n):
    return [i % 3 % 2 for i in range(n)]


def write_csv(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def table(folder, rows):
    lines = [(i, y, who) for i, ((_, who), y) in enumerate(zip(rows, labels(len(rows)), strict=True))]
    return TabularCsv(write_csv(folder / "t.csv", ("a", "label", "pid"), lines), target="label", patient="pid")


def picture(path, i):
    Image.fromarray(np.full((2, 2), i, np.uint8)).save(path)


def listed(folder, rows):
    lines = []
    for i, ((_, who), y) in enumerate(zip(rows, labels(len(rows)), strict=True)):
        picture(folder / f"{i}.png", i)
        lines.append((f"{i}.png", y, who))
    return ImageCsv(write_csv(folder / "l.csv", ("path", "label", "patient"), lines), mode="L")


def folders(folder, rows):
    for i, ((_, who), y) in enumerate(zip(rows, labels(len(rows)), strict=True)):
        (folder / "images" / str(y)).mkdir(parents=True, exist_ok=True)
        picture(folder / "images" / str(y) / f"{who}_{i:03}.png", i)
    return ImageFolder(str(folder / "images"), mode="L", patient=r"/(?P<patient>[^/_]+)_")


def arrays(folder, rows):
    return {
        "x": np.arange(2 * len(rows), dtype=np.float32).reshape(-1, 2),
        "y": np.array(labels(len(rows))),
        "patients": np.array([who for _, who in rows]),
    }


def npz(folder, rows):
    np.savez(folder / "p.npz", **arrays(folder, rows))
    return Npz(str(folder / "p.npz"))


def medmnist(folder, rows):
    held, half = arrays(folder, rows), len(rows) // 2
    parts = {}
    for part, which in (("train", slice(half)), ("val", slice(half, None))):
        parts |= {f"{part}_images": held["x"][which], f"{part}_labels": held["y"][which]}
        parts[f"{part}_patients"] = held["patients"][which]
    np.savez(folder / "m.npz", **parts)
    return Npz(str(folder / "m.npz"))


def embeddings(folder, rows):
    np.savez(folder / "e.npz", **arrays(folder, rows))
    return EmbeddingsNpz(str(folder / "e.npz"))


def hugging_face(folder, rows):
    datasets = pytest.importorskip("datasets")
    from fedimb.data.sources.huggingface import HuggingFace

    held = {"a": [float(i) for i in range(len(rows))], "label": labels(len(rows)), "pid": [who for _, who in rows]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(held)}).save_to_disk(str(folder / "hf"))
    return HuggingFace(str(folder / "hf"), image=None, features=["a"], patient="pid")


def dicom(folder, rows):
    pydicom = pytest.importorskip("pydicom")
    from fedimb.data.sources.dicom import Dicom

    lines = []
    for i, ((_, who), y) in enumerate(zip(rows, labels(len(rows)), strict=True)):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = f"1.2.{i + 1}"
        one.SOPClassUID, one.Modality, one.PatientID = "1.2.840.10008.5.1.4.1.1.7", "OT", who
        one.Rows = one.Columns = 2
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
        one.BitsAllocated = one.BitsStored = 8
        one.HighBit, one.PixelData = 7, bytes([i, i + 1, i + 2, i + 3])
        one.save_as(folder / f"{i}.dcm", enforce_file_format=True)
        lines.append((f"{i}.dcm", y))
    return Dicom(str(folder), write_csv(folder / "labels.csv", ("file", "label"), lines))


SOURCES = [table, listed, folders, npz, medmnist, embeddings, hugging_face, dicom]


@pytest.mark.parametrize("write", SOURCES)
def test_a_person_under_two_spellings_is_one_and_on_one_side(tmp_path, write):
    rows = people()
    data = write(tmp_path, rows).load()
    numbers = data.patients
    if write is folders:  # its rows are sorted by path; a picture's value is its row
        numbers = np.empty(len(rows), np.int64)
        numbers[data.x[:, 0, 0, 0]] = data.patients
    of = {}
    for number, (person, _) in zip(numbers.tolist(), rows, strict=True):
        of.setdefault(person, set()).add(number)
    assert all(len(held) == 1 for held in of.values())  # no person is two
    assert len({next(iter(held)) for held in of.values()}) == len(of)  # no two are one
    rule = {"name": "stratified", "fraction": 0.3}
    test, rest = split_test(data.y, data.class_names, rule, np.random.default_rng(0), data.patients)
    sides = [{rows[i][0] for i in np.flatnonzero(np.isin(numbers, data.patients[side]))} for side in (test, rest)]
    assert all(sides)
    assert not sides[0] & sides[1]


@given(st.lists(st.sampled_from([*map(str, LONG), "7", "7.0", "07", " 7", "a", "A"]), min_size=4, max_size=9))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tables_and_arrays_tell_the_same_people_apart(tmp_path, spelled):
    rows = [(None, who.strip()) for who in spelled]  # a table's fields are stripped
    partition = [
        [[i for i, n in enumerate(held) if n == number] for number in dict.fromkeys(held)]
        for held in (write(tmp_path, rows).load().patients.tolist() for write in (table, npz, embeddings))
    ]
    assert partition[0] == partition[1] == partition[2]


def test_ids_as_floats_are_those_whole_numbers_or_refused(tmp_path):
    def read(patients, **more):
        np.savez(tmp_path / "f.npz", x=np.ones((2, 2), np.float32), y=[0, 1], patients=patients, **more)
        return Npz(str(tmp_path / "f.npz")).load()

    assert read(np.array([7.0, 7.0])).patients.tolist() == [0, 0]
    with pytest.raises(
        DataError, match=r"patients\[0\] and 1 more: patient .* whole numbers from 2\^53 on are rounded in it"
    ):
        read(np.array(LONG, np.float64))


@pytest.mark.parametrize("codes", [LONG, (999000011000000103, 16221361000119107), ("0012", "12"), ("yes", "Yes")])
def test_codes_stay_the_classes_that_are_written(tmp_path, codes):
    rows = [codes[i % 2] for i in range(8)]
    names = {str(code) for code in codes}
    path = write_csv(tmp_path / "t.csv", ("a", "label"), [(i, code) for i, code in enumerate(rows)])
    assert set(TabularCsv(path, target="label").load().class_names) == names
    feature = write_csv(tmp_path / "c.csv", ("a", "label"), [(code, i % 2) for i, code in enumerate(rows)])
    columns = TabularCsv(feature, target="label", categorical=["a"]).load().columns
    assert set(columns.categories["a"]) == names
    for i in range(8):
        picture(tmp_path / f"{i}.png", i)
    pictures = write_csv(tmp_path / "l.csv", ("path", "label"), [(f"{i}.png", code) for i, code in enumerate(rows)])
    assert set(ImageCsv(pictures, mode="L").load().class_names) == names
    np.savez(tmp_path / "d.npz", x=np.ones((8, 2), np.float32), y=np.array(rows))
    data = Npz(str(tmp_path / "d.npz")).load()
    assert [data.class_names[c] for c in data.y] == list(map(str, rows))


def test_numbers_of_patients_stay_apart_by_site(tmp_path):
    paths = {
        site: write_csv(tmp_path / f"{site}.csv", ("a", "label", "pid"), [(1, 0, "7"), (2, 1, spelled)])
        for site, spelled in (("north", "7.0"), ("south", "8"))
    }
    assert TabularCsv(paths, target="label", patient="pid").load().patients.tolist() == [0, 0, 1, 2]


def test_sites_and_categories_in_two_spellings_are_one(tmp_path):
    rows = [(1.0, 0, "2.0"), (2, 1, "2"), (1, 0, "10"), (2, 1, "02")]
    path = write_csv(tmp_path / "t.csv", ("a", "label", "site"), rows)
    data = TabularCsv(path, target="label", site_column="site", categorical=["a"]).load()
    assert (data.site_names, data.sites.tolist()) == (("02", "2.0", "10"), [1, 1, 2, 0])
    rule = {"name": "leave_site_out", "sites": [2]}
    test, _ = split_test(
        data.y, data.class_names, rule, np.random.default_rng(0), sites=data.sites, site_names=data.site_names
    )
    assert test.tolist() == [0, 1]
    assert data.columns.categories["a"] == ("1", "2")


def test_a_user_of_leaf_under_two_spellings_is_one_patient(tmp_path):
    for part, user in (("train", "7.0"), ("test", "7")):
        (tmp_path / part).mkdir()
        held = {"users": [user, "8"], "num_samples": [2, 2]}
        held["user_data"] = {one: {"x": [[1.0], [2.0]], "y": [0, 1]} for one in held["users"]}
        (tmp_path / part / "all.json").write_text(json.dumps(held))
    assert LeafJson(str(tmp_path), users="patient").load().patients.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert LeafJson(str(tmp_path)).load().site_names == ("7.0", "8")


def test_marks_for_no_label_are_no_classes(tmp_path):
    (tmp_path / "train").mkdir()
    np.savez(tmp_path / "train" / "0.npz", x=np.ones((4, 2), np.float32), y=np.array([0, 1, 2, 255]))
    with pytest.raises(DataError, match="label 255 stands beside ids 0 to 2 as a mark for 'no label' does"):
        Shards(str(tmp_path)).load()
    assert Shards(str(tmp_path), class_names=["0", "1", "2", "255"]).load().class_names[3] == "255"
    datasets = pytest.importorskip("datasets")
    from fedimb.data.sources.huggingface import HuggingFace

    held = datasets.Dataset.from_dict({"a": [1.0, 2, 3], "label": [0, 1, -1]})
    datasets.DatasetDict({"train": held}).save_to_disk(str(tmp_path / "hf"))
    with pytest.raises(DataError, match="label -1 stands beside ids 0 to 1"):
        HuggingFace(str(tmp_path / "hf"), image=None, features=["a"]).load()


OLD = {"names": ["a"], "categories": {"a": ["12", "0.5"]}, "indicators": [], "missing": {}}


def test_new_rows_of_a_run_of_0_1_are_read_by_its_rule(tmp_path):
    """It stored 0012 as 12 and 0.50 as 0.5; its labels too."""
    path = write_csv(tmp_path / "new.csv", ("a", "label"), [("0012", "01"), ("0.50", "2.0")])

    def read(facts):
        expected = Expected(Inputs((2,), "float32", columns=TableColumns.from_facts(facts)), ("1", "2"), "multiclass")
        problems = Problems("refuse")
        batches = list(TabularCsv(path, target="label").new_rows(expected, problems))
        problems.settle(2)
        return batches[0]

    batch = read(OLD)
    assert batch.x.tolist() == [[1, 0], [0, 1]]
    assert batch.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"category '0012' is not listed|label '01' is not a class"):
        read(OLD | {"by_value": False})
