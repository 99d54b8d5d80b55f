"""Pictures as people have them: ids without suffix, numbered files, parts, Training and Testing, MedMNIST+ sizes."""

import numpy as np
import pytest
from tiny_images import image, put

from fedimb.data.check import guess_source, load_source
from fedimb.data.sources.file_names import FileNames
from fedimb.data.sources.image_csv import ImageCsv
from fedimb.data.sources.image_folder import ImageFolder
from fedimb.errors import ConfigError, DataError


@pytest.fixture
def ham(tmp_path):
    """HAM10000's layout: ids in the CSV, pictures in two parts."""
    put(
        tmp_path,
        part_1__ISIC_1=b"",
        **{"part_1/ISIC_1.jpg": image(10), "part_2/ISIC_2.jpg": image(20), "part_2/ISIC_3.jpg": image(30)},
        meta_csv="image_id,dx,lesion_id\nISIC_1,nv,L1\nISIC_2,mel,L2\nISIC_3,nv,L1\n",
    )
    (tmp_path / "part_1/ISIC_1").unlink()
    return {
        "path": str(tmp_path / "meta.csv"),
        "path_column": "image_id",
        "label_column": "dx",
        "patient_column": "lesion_id",
        "suffix": ".jpg",
        "folders": ("part_1", "part_2"),
    }


def test_ids_without_a_suffix_in_several_folders(ham, tmp_path):
    source = ImageCsv(**ham)
    data = source.load()
    assert data.x[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert data.class_names == ("mel", "nv")
    assert data.patients.tolist() == [0, 1, 0]
    before = source.fingerprint()
    assert ImageCsv(**ham).fingerprint() == before
    put(tmp_path, **{"part_1/ISIC_2.jpg": image(21)})
    with pytest.raises(DataError, match=r"meta.csv row 3: 'ISIC_2.jpg' is in part_1 and in part_2"):
        ImageCsv(**ham).load()
    (tmp_path / "part_1/ISIC_2.jpg").unlink()
    (tmp_path / "part_2/ISIC_2.jpg").unlink()
    with pytest.raises(DataError, match=r"'ISIC_2.jpg' is in none of part_1, part_2; list the folders"):
        ImageCsv(**ham).load()


def test_a_template_writes_numbers_and_other_columns(tmp_path):
    put(
        tmp_path,
        **{"a/001.png": image(1), "b/012.png": image(2)},
        list_csv="path,label,site\n1,cat,a\n12.0,dog,b\n",
    )
    data = ImageCsv(str(tmp_path / "list.csv"), path_template="{site}/{:03d}.png").load()
    assert data.x[:, 0, 0, 0].tolist() == [1, 2]
    assert data.site_names == ("a", "b")
    for template, says in (
        ("{:03d}/{where}.png", "names the column 'where'"),
        ("{site:02d}.png", "'a' is not the whole"),
    ):
        with pytest.raises(DataError, match=says):
            ImageCsv(str(tmp_path / "list.csv"), path_template=template).load()
    (tmp_path / "list.csv").write_text("path,label\nx,cat\n12,dog\n")
    with pytest.raises(DataError, match=r"row 2: 'x' is not the whole number that path_template='{:03d}.png' needs"):
        ImageCsv(str(tmp_path / "list.csv"), path_template="{:03d}.png", root=str(tmp_path / "b")).load()


def test_a_template_may_not_lead_outside(tmp_path):
    put(tmp_path, **{"in/list.csv": "path,label\n../out,a\n"})
    with pytest.raises(DataError, match="leads outside the folder of the images"):
        ImageCsv(str(tmp_path / "in/list.csv"), path_template="{}.png").load()


@pytest.mark.parametrize(
    "template", ["a.png", "{", "{0.__class__}", "{path.real}", "{a[0]}", "{!r}", "{:>9}", "{:99999d}", "{0}"]
)
def test_templates_that_are_refused(template):
    with pytest.raises(ConfigError, match="path_template=") as refused:
        FileNames(template)
    assert "\n" not in str(refused.value)


def test_a_template_and_a_suffix_contradict_each_other():
    with pytest.raises(ConfigError, match="source 'image_csv': path_template already writes the whole name"):
        ImageCsv("a.csv", path_template="{}.png", suffix=".png")


@pytest.mark.parametrize(
    ("train", "test", "validation"),
    [
        ("Training", "Testing", None),
        ("TRAIN", "test", "Valid"),
        ("train", "test", "val"),
        ("training", "Test", "validation"),
    ],
)
def test_the_usual_names_of_the_sets_are_found(tmp_path, train, test, validation):
    sets = [train, test, *([validation] if validation else [])]
    files = {
        f"{name}/{kind}/{i}.png": image(10 * n + i) for n, name in enumerate(sets) for kind in "ab" for i in (0, 1)
    }
    put(tmp_path, **files)
    data = ImageFolder(str(tmp_path)).load()
    assert data.class_names == ("a", "b")
    assert int(data.official_test.sum()) == 4
    assert len(data.y) == 4 * len(sets)


def test_classes_that_are_called_like_sets_stay_classes(tmp_path):
    put(tmp_path, **{"valid/0.png": image(1), "invalid/0.png": image(2)})
    assert ImageFolder(str(tmp_path)).load().class_names == ("invalid", "valid")
    put(tmp_path, **{"Testing/0.png": image(2), "Training/0.png": image(3)})
    with pytest.raises(DataError, match="folder 'invalid' beside 'Testing': move it away, or give train_folder=null"):
        ImageFolder(str(tmp_path)).load()
    data = ImageFolder(str(tmp_path), train_folder=None, test_folder=None).load()
    assert data.class_names == ("Testing", "Training", "invalid", "valid")
    put(tmp_path, **{"train/0.png": image(2)})
    with pytest.raises(DataError, match="folders 'Training' and 'train' are both the same set"):
        ImageFolder(str(tmp_path)).load()


@pytest.mark.parametrize("size", [28, 64])
def test_medmnist_of_any_size(tmp_path, size):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, rows in (("train", 6), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (rows, size, size, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(rows, dtype=np.uint8)[:, None] % 2
    path = tmp_path / ("pathmnist.npz" if size == 28 else f"pathmnist_{size}.npz")
    np.savez_compressed(path, **arrays)
    assert guess_source(path) == "npz"
    data = load_source({"name": "npz", "path": str(path)})
    assert data.x.shape == (11, 3, size, size)
    assert int(data.official_test.sum()) == 3
