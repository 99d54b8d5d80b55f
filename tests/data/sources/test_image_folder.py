"""Folders and zips of images: layouts, units, fingerprints; CIFAR-10 where it is at hand."""

import logging
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tiny_images import image, packed, put, two_classes

from fedimb.data.sources import progress
from fedimb.data.sources.image_folder import ImageFolder
from fedimb.data.store import open_source

ROOT = Path(os.environ.get("FEDIMB_DATA_DIR", "/nonexistent"))
needs_cifar10 = pytest.mark.skipif(
    not (ROOT / "cifar10.zip").is_file(), reason="cifar10.zip is not in $FEDIMB_DATA_DIR"
)


def test_classes_are_folders_and_rows_sorted_by_path(tmp_path):
    put(two_classes(tmp_path / "im"), ant__deep__er__0_png=image(9), README=b"x", **{".hidden": b"x"})
    put(tmp_path / "im", **{"__MACOSX__cat__0_png": b"x", "cat__.DS_Store": b"x"})
    data = ImageFolder(str(tmp_path / "im")).load()
    assert data.class_names == ("ant", "cat", "dog")
    assert data.y.tolist() == [0, 1, 1, 2, 2]
    assert data.x.shape == (5, 3, 4, 4)
    assert data.x[:, 0, 0, 0].tolist() == [9, 1, 2, 3, 4]
    assert data.scale == 1 / 255
    assert data.official_test is None
    assert data.sites is None
    assert data.patients is None


def test_a_zip_is_read_as_its_folder_is(tmp_path):
    two_classes(tmp_path / "im")
    entries = {f"top/{p.relative_to(tmp_path / 'im')}": p.read_bytes() for p in (tmp_path / "im").rglob("*.png")}
    path = packed(tmp_path / "im.zip", entries | {"top/": b"", "other/cat/0.png": b""})
    zipped = ImageFolder(str(path), inside="top").load()
    folder = ImageFolder(str(tmp_path / "im")).load()
    assert np.array_equal(zipped.x, folder.x)
    assert np.array_equal(zipped.y, folder.y)
    assert zipped.class_names == folder.class_names


def test_given_classes_give_the_order_and_mode_and_size_the_shape(tmp_path):
    data = ImageFolder(str(two_classes(tmp_path)), classes=("dog", "cat"), mode="L", size=(2, 8)).load()
    assert data.class_names == ("dog", "cat")
    assert data.y.tolist() == [1, 1, 0, 0]
    assert data.x.shape == (4, 1, 2, 8)


def test_train_and_test_folders_are_the_official_split(tmp_path):
    put(tmp_path, train__cat__0_png=image(1), train__dog__0_png=image(2), test__dog__0_png=image(3))
    data = ImageFolder(str(tmp_path)).load()
    assert data.class_names == ("cat", "dog")
    assert data.x[data.official_test, 0, 0, 0].tolist() == [3]
    assert ImageFolder(str(tmp_path), train_folder=None, test_folder=None).load().class_names == ("test", "train")


def test_one_set_alone_is_no_official_split(tmp_path):
    data = ImageFolder(str(put(tmp_path, train__cat__0_png=image(), train__dog__0_png=image()))).load()
    assert data.class_names == ("cat", "dog")
    assert data.official_test is None


def test_sites_and_patients_come_from_the_path(tmp_path):
    put(tmp_path, cat__rome_p2_0_png=image(), cat__rome_p2_1_png=image(), dog__bern_p1_0_png=image())
    source = ImageFolder(str(tmp_path), patient=r"_(?P<patient>p\d+)_", site=r"/(?P<site>[a-z]+)_")
    data = source.load()
    assert data.site_names == ("bern", "rome")
    assert data.sites.tolist() == [1, 1, 0]
    assert data.patients.tolist() == [1, 1, 0]


def test_the_fingerprint_follows_files_and_settings(tmp_path):
    folder = str(two_classes(tmp_path))
    first = ImageFolder(folder).fingerprint()
    assert ImageFolder(folder).fingerprint() == first
    assert ImageFolder(folder, size=(2, 2)).fingerprint() != first
    os.utime(tmp_path / "cat" / "0.png", (1, 1))
    touched = ImageFolder(folder).fingerprint()
    assert touched != first
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "9.png")
    assert ImageFolder(folder).fingerprint() != touched


def test_a_zip_keeps_its_fingerprint_where_it_is_copied(tmp_path):
    one = packed(tmp_path / "a.zip", {"cat/0.png": image(1)})
    same = packed(tmp_path / "there" / "b.zip", {"cat/0.png": image(1)})
    other = packed(tmp_path / "c.zip", {"cat/0.png": image(2)})
    assert ImageFolder(str(one)).fingerprint() == ImageFolder(str(same)).fingerprint()
    assert ImageFolder(str(one)).fingerprint() != ImageFolder(str(other)).fingerprint()


def test_the_store_lists_what_was_skipped(tmp_path, monkeypatch, caplog):
    put(two_classes(tmp_path / "im"), cat__2_png=b"x")
    monkeypatch.setenv("FEDIMB_DATA_DIR", str(tmp_path))
    with caplog.at_level(logging.WARNING, "fedimb"):
        store = open_source({"name": "image_folder", "path": "im", "on_bad": "skip"})
    assert len(store) == 4
    assert store.skipped == ("im/cat/2.png: cannot be decoded (not an image format that Pillow knows)",)
    assert "left out 1 rows" in caplog.text


def test_whoever_waits_is_told(monkeypatch, capsys):
    now = iter([0.0, 0.0, 2.5, 3.0, 13.0, 16.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    assert list(progress.with_progress("abcd", "im: decoding")) == list("abcd")
    assert capsys.readouterr().err == "im: decoding 1/4 (0/s)\nim: decoding 3/4 (0/s)\nim: decoding 4/4 (0/s)\n"


@needs_cifar10
def test_cifar10_index_and_a_few_images(tmp_path):
    """Three images of each class and set, packed into a zip of the same layout."""
    with zipfile.ZipFile(ROOT / "cifar10.zip") as archive:
        names = archive.namelist()
        few = {name: archive.read(name) for name in names if name.endswith(("/0000.jpg", "/0500.jpg", "/0999.jpg"))}
    assert len(names) == 60_000
    data = ImageFolder(str(packed(tmp_path / "few.zip", few))).load()
    assert data.x.shape == (60, 3, 32, 32)
    assert np.bincount(data.y).tolist() == [6] * 10
    assert data.official_test.sum() == 30
    assert 90 < data.x.mean() < 150


@needs_cifar10
@pytest.mark.slow
def test_cifar10_whole(capsys):
    """About a minute of one core, and 184 MB beside the interpreter."""
    import resource

    source = ImageFolder("cifar10.zip")
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    data = source.load()
    seconds = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    with capsys.disabled():
        print(f"\n60,000 images: {60_000 / seconds:,.0f} per CPU second, {grown:,.0f} MiB more memory at most")
    assert data.x.shape == (60_000, 3, 32, 32)
    assert np.bincount(data.y[data.official_test]).tolist() == [1000] * 10
    assert np.allclose(data.x.mean((0, 2, 3)), [125.4, 123.1, 114.0], atol=0.5)
    assert grown < 3 * data.x.nbytes / 2**20
