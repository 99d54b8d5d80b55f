"""``fedimb predict`` on arrays and files without labels: npz, pictures, DICOM, embeddings, several labels per row."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from small_runs import launch_in

import fedimb
from fedimb.cli import main
from fedimb.data.new_rows import Expected
from fedimb.data.problems import Problems
from fedimb.data.sources import dicom
from fedimb.data.sources.dicom_grey import Grey
from fedimb.errors import ConfigError, DataError
from fedimb.rundir.new_data import source_for

CLASSES = ("dark", "light")


def picture(value, size=6):
    out = io.BytesIO()
    Image.fromarray(np.full((size, size), value, np.uint8)).save(out, "png")
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("new-pictures")


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def run(cache_dir, folder):
    """A finished run on grey pictures in class folders."""
    for i in range(40):
        name = CLASSES[i % 2]
        (folder / "train" / name).mkdir(parents=True, exist_ok=True)
        (folder / "train" / name / f"{i:02d}.png").write_bytes(picture(40 + 150 * (i % 2) + i))
    source = f"data.source={{name: image_folder, path: '{folder / 'train'}', mode: L, size: [4, 4]}}"
    return launch_in(folder, "data=image_folder", source, "data.n_max=null", "engine=inline", "model=logistic",
                     "clients.count=2", "local.lr=0.1")  # fmt: skip


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def predict(run, *words):
    return main(["predict", str(run.folder), *map(str, words)])


def test_a_folder_of_pictures_one_picture_and_class_folders(run, folder, capsys):
    new = folder / "new"
    (new / "ward").mkdir(parents=True)
    for name, value in (("a.png", 30), ("ward/b.png", 220)):
        (new / name).write_bytes(picture(value, size=8))
    (new / "notes.txt").write_text("x")
    assert predict(run, "new", "--out", "f.csv") == 0
    lines = read("f.csv")
    assert [(line["row"], line["id"], line["predicted"]) for line in lines] == [
        ("0", "a.png", "dark"),
        ("1", "ward/b.png", "light"),
    ]
    assert "true" not in lines[0]
    assert "1 files are not pictures and left out, first notes.txt" in capsys.readouterr().err
    assert predict(run, "new/ward/b.png", "--out", "one.csv") == 0
    (one,) = read("one.csv")
    assert one | {"row": "1", "id": "ward/b.png"} == lines[1]
    (new / "light").mkdir()
    (new / "light" / "c.png").write_bytes(picture(210))
    assert predict(run, "new", "--out", "mixed.csv") == 2
    assert "folder 'light' is a class of the run and some pictures are outside" in capsys.readouterr().err
    (folder / "labelled" / "light").mkdir(parents=True)
    (folder / "labelled" / "light" / "c.png").write_bytes(picture(210))
    assert predict(run, "labelled", "--out", "labelled.csv") == 0  # one class is enough
    assert [line["true"] for line in read("labelled.csv")] == ["light"]
    (folder / "stay.csv").write_text(",dark,light\ndark,9,1\nlight,1,9\n")
    assert predict(run, "labelled", "--transitions", "stay.csv", "--out", "film.csv") == 2
    assert "labelled are in a folder for each class, so their order is that of the labels" in capsys.readouterr().err
    (folder / "film").mkdir()
    for number in (1, 2, 10):
        (folder / "film" / f"f{number}.png").write_bytes(picture(30))
    assert predict(run, "film", "--transitions", "stay.csv", "--out", "film.csv") == 2
    assert "'f2.png' comes after 'f10.png'" in capsys.readouterr().err
    assert not (folder / "film.csv").exists()


def test_pictures_equalised_otherwise_than_the_runs_are_refused(run, folder, capsys):
    assert fedimb.load_model(run.folder).origin.inputs.row_settings == {"clahe": None, "mode": "L"}
    (folder / "equal").mkdir()
    (folder / "equal" / "a.png").write_bytes(picture(30))
    source = ["name=image_folder", "path=equal", "mode=L", "size=[4,4]"]
    assert predict(run, "--source", *source, "--out", "equal.csv") == 0
    assert predict(run, "--source", *source, "clahe={tiles: 2}", "--out", "no.csv") == 2
    assert "clahe={clip: 2.0, tiles: 2}, the run was trained on rows read with clahe=null" in capsys.readouterr().err
    words = ["data=image_folder", *(f"data.source.{word}" for word in source[1:]), "data.source.clahe={tiles: 2}"]
    assert predict(run, *words, "--out", "no.csv") == 2
    assert "give clahe=null (data.source.clahe=..." in capsys.readouterr().err
    assert not (folder / "no.csv").exists()


def test_a_list_of_pictures_without_labels(run, folder):
    (folder / "list.csv").write_text("path,ward\nnew2/x.png,7\nnew2/gone.png,8\nnew2/y.png,7\n")
    (folder / "new2").mkdir()
    for name, value in (("x", 30), ("y", 220)):
        (folder / "new2" / f"{name}.png").write_bytes(picture(value))
    assert predict(run, "list.csv", "--out", "l.csv") == 2
    assert predict(run, "list.csv", "--on-bad", "skip", "--out", "l.csv") == 0
    assert [(line["row"], line["id"]) for line in read("l.csv")] == [("0", "new2/x.png"), ("2", "new2/y.png")]


def test_an_npz_of_the_same_pictures_and_of_others(run, folder):
    x = np.stack([np.full((4, 4), value, np.uint8) for value in (30, 220, 40)])
    np.savez_compressed(folder / "new.npz", x=x, ids=np.array(["a", "b", "c"]))
    model = fedimb.load_model(run.folder)
    said = model.predict("new.npz")
    assert said.ids == ("a", "b", "c")
    assert said.classes == model.predict(x[:, None]).classes
    assert said.labels is None
    assert np.array_equal(said.scores, model.predict(x[:, None]).scores)
    for other, line in (
        ({"x": x / np.float32(255)}, "holds float32 values, the run was trained on uint8"),
        ({"x": x[:, :3]}, r"a row of the data is \[1, 3, 4\], the run's are \[1, 4, 4\]"),
        ({"x": (x > 100).astype(np.uint8)}, "holds values from 0 to 1, the run was trained on"),
        ({"x": x, "ids": np.arange(2)}, "has 2 ids for 3 rows"),
        ({"images": x}, "holds images; give"),
        ({"x": x, "y": np.array([0, 1, 2])}, "is not a class id: give whole numbers from 0 to 1"),
        ({"x": x.astype(np.int64)}, "x is int64; save it as uint8"),
    ):
        np.savez(folder / "other.npz", **other)
        with pytest.raises(DataError, match=line):
            model.predict("other.npz")


def test_an_npz_whose_header_lies_is_refused_before_anything_is_read(run, folder):
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 1, 4, 4)})
    with zipfile.ZipFile(folder / "lies.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(16))
    with pytest.raises(DataError, match=r"but holds .* bytes; write the file again"):
        fedimb.load_model(run.folder).predict("lies.npz")


def test_batches_give_the_same_bits_as_all_rows_at_once(run):
    x = np.random.default_rng(0).integers(40, 230, (9000, 1, 4, 4)).astype(np.uint8)
    np.savez("many.npz", x=x)
    np.savez("by_column.npz", x=np.asfortranarray(x))
    model = fedimb.load_model(run.folder)
    parts = list(model.predict_batches("many.npz"))
    assert [len(part) for part in parts] == [4096, 4096, 808]
    whole = model(x).softmax(1).detach().numpy()
    assert np.array_equal(np.concatenate([part.rows for part in parts]), np.arange(9000))
    assert np.array_equal(np.concatenate([part.scores for part in parts]), whole)
    assert np.array_equal(model.predict("by_column.npz").scores, whole)


def test_one_dicom_file_and_a_folder_of_them(monkeypatch, folder):
    """With a stand-in for the decoder, which needs pydicom."""
    monkeypatch.setattr(dicom, "load_pydicom", lambda: None)
    monkeypatch.setattr(
        dicom, "read_grey", lambda data: Grey(np.full((1, 8, 8), data[0], np.uint8), "Q-773-19", data[0] == 66)
    )
    (folder / "films" / "b").mkdir(parents=True)
    for name, content in (("one.dcm", b"A"), ("b/two", b"C"), ("readme.txt", b"x")):
        (folder / "films" / name).write_bytes(content)
    trained = {"name": "dicom", "path": "old", "labels": "old.csv", "size": [4, 4]}
    inputs = Expected(fedimb_inputs(), CLASSES, "multiclass")

    def rows(path):
        problems = Problems("refuse")
        source = source_for(folder / path, trained, inputs.inputs)
        kept = {key: value for key, value in source.items() if key != "name"}
        batches = list(dicom.Dicom(**kept).new_rows(inputs, problems))
        problems.settle(1)
        return batches

    (batch,) = rows("films")
    assert batch.ids == ("b/two", "one.dcm")  # never the PatientID
    assert batch.x.shape == (2, 1, 4, 4)
    assert batch.x[:, 0, 0, 0].tolist() == [ord("C"), ord("A")]
    assert batch.labels is None
    (batch,) = rows("films/one.dcm")
    assert batch.ids == ("one.dcm",)
    (folder / "films" / "list.csv").write_text("file\none.dcm\n")
    assert rows("films/list.csv")[0].ids == ("one.dcm",)
    (folder / "films" / "name.dcm").write_bytes(b"B")
    with pytest.raises(DataError, match="burned-in annotation"):
        rows("films/name.dcm")
    with pytest.raises(DataError, match="not on DICOM files"):
        source_for(folder / "films" / "one.dcm", {"name": "image_folder"}, inputs.inputs)


def fedimb_inputs():
    from fedimb.data.inputs import Inputs

    return Inputs((1, 4, 4), "uint8", 0.0, 255.0)


def test_embeddings_keep_their_normalisation(cache_dir, folder):
    """A file of embeddings was read as plain arrays, without the run's l2_normalise."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 3)).astype(np.float32) + 3 * np.eye(3, dtype=np.float32)[y]
    np.savez(folder / "e.npz", x=x, y=y)
    source = f"data.source={{name: embeddings_npz, path: '{folder / 'e.npz'}', l2_normalise: true}}"
    run = launch_in(folder, "data=embeddings_npz", source, "data.n_max=null", "engine=inline", "model=logistic",
                    "clients.count=2", "rounds=1")  # fmt: skip
    np.savez(folder / "new_e.npz", x=7 * x[:5])
    model = fedimb.load_model(run.folder)
    unit = x[:5] / np.linalg.norm(x[:5], axis=1, keepdims=True)
    assert np.allclose(model.predict("new_e.npz").scores, model.predict(unit).scores, atol=1e-6)


@pytest.fixture(scope="module")
def several(cache_dir, folder):
    """A finished run whose rows have several labels, with validation rows."""
    rng = np.random.default_rng(0)
    targets = rng.random((160, 2)) < [0.5, 0.15]
    x = targets @ np.array([[1.0, 0, 1], [0, 1, 1]]) + 0.4 * rng.normal(size=(160, 3))
    np.savez(folder / "s.npz", x=x.astype(np.float32), y=targets)
    source = f"data.source={{name: npz, path: '{folder / 's.npz'}', class_names: [mass, nodule, none]}}"
    return launch_in(folder, "data=npz", source, "data.test={name: stratified, fraction: 0.2}", "data.validation=0.3",
                     "model=logistic", "loss=bce", "engine=inline", "clients.count=2", "local.lr=0.1")  # fmt: skip


def test_of_several_labels_each_class_gets_a_threshold_chosen_on_validation_rows(several, folder, capsys):
    with np.load(folder / "s.npz") as arrays:
        np.savez(folder / "s_new.npz", x=arrays["x"][:50])
    assert predict(several, "s_new.npz", "--out", "half.csv") == 0
    assert predict(several, "s_new.npz", "--best-f1", "--out", "f1.csv") == 0
    assert "thresholds for best F1, chosen on the run's " in capsys.readouterr().out
    model = fedimb.load_model(several.folder)
    chosen = model.choose_thresholds()
    assert {one.class_id for one in chosen.achieved} == {0, 1, 2}
    assert any(one.value != 0.5 for one in chosen.achieved)
    for name, limits in (("half", [0.5] * 3), ("f1", [chosen.rule.thresholds[c] for c in range(3)])):
        for line in read(f"{name}.csv"):
            said = [c for c, n in enumerate(model.class_names) if float(line[f"score:{n}"]) >= limits[c]]
            assert line["labels"] == "|".join(model.class_names[c] for c in said)
    assert predict(several, "s_new.npz", "--recall", "0.9", "--class", "nodule", "--out", "r.csv") == 0
    recall = model.choose_thresholds(recall=0.9, classes=["nodule"])
    assert recall.achieved[0].recall >= 0.9
    with pytest.raises(ConfigError, match="abstaining is for rows of one label"):
        model.predict("s_new.npz", abstain_below=0.6)
