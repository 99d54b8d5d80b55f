"""Every kind of bad folder, zip and list as a whole: the line that refuses it."""

import zipfile

import pytest
from image_cases import GOOD, HEAD, foldered, listed, sets, zipped
from tiny_images import image, packed, two_classes

from fedimb import registry
from fedimb.errors import ConfigError, DataError


def not_a_zip(folder):
    (folder / "im.zip").write_bytes(b"no zip")
    return {"name": "image_folder", "path": "im.zip"}


def encrypted(folder):
    path = packed(folder / "im.zip", {"cat/0.png": image()})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # the flag of the central directory
    path.write_bytes(raw)
    return {"name": "image_folder", "path": "im.zip"}


def twice_in_zip(folder):
    with zipfile.ZipFile(folder / "im.zip", "w") as archive:
        archive.writestr("cat/0.png", image())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("cat/0.png", image(7))
    return {"name": "image_folder", "path": "im.zip"}


def empty_folder(folder):
    (folder / "im" / "cat").mkdir(parents=True)
    return {"name": "image_folder", "path": "im"}


def empty_class(folder):
    (two_classes(folder / "im") / "eel").mkdir()
    return {"name": "image_folder", "path": "im"}


def linked_twice(folder):
    (two_classes(folder / "im") / "eel").symlink_to(folder / "im" / "cat")
    return {"name": "image_folder", "path": "im"}


def nothing(folder):
    return {"name": "image_folder", "path": "im"}


WIDE = image(shape=(4, 5, 3))


WHOLES = [
    ("no such file", nothing, "no 'im' in the current folder ("),
    ("csv: empty", listed(""), "im/list.csv is empty"),
    ("csv: header alone", listed(HEAD), "im/list.csv has a header but no rows"),
    ("csv: no header", listed(GOOD), "path_column names 'path', which is not a column of im/list.csv"),
    ("csv: column missing", listed("path,labels\n" + GOOD), "not a column of im/list.csv. Did you mean 'labels'?"),
    (
        "csv: column of a name missing",
        listed(HEAD + GOOD, site_column="hospital"),
        "site_column names 'hospital', which is not a column of",
    ),
    ("csv: another encoding", listed((HEAD + GOOD + "ü.png,cat\n").encode("latin-1")), "is not text in utf-8"),
    ("csv: quote left open", listed(HEAD + '"cat/0.png,cat\n'), "im/list.csv row 2: unexpected end of data"),
    (
        "csv: several labels",
        listed(HEAD + GOOD + "a.png,cat|dog\n"),
        "row 6: label 'cat|dog' names several classes; give one class per",
    ),
    (
        "csv: empty class",
        listed(HEAD + GOOD, classes=["cat", "dog", "eel"]),
        "im/list.csv: class 'eel' has no images",
    ),
    ("empty class", empty_class, "im: class 'eel' has no images"),
    ("no images", empty_folder, "im: no images; check the path"),
    ("sizes mixed", foldered(dog__2_png=WIDE), "im/cat/0.png is 4 x 4, im/dog/2.png is 4 x 5; give size=[height"),
    ("a folder beside train", sets("cat/p3", "dog/p4", train_folder="fit"), "im: folder 'train' beside 'test': move"),
    ("linked folder", linked_twice, "'cat' and 'eel' are the same folder; remove the link"),
    ("not a zip", not_a_zip, "im.zip is neither a folder nor a readable zip file"),
    ("zip: absolute name", zipped(("/etc/x.png", b"x")), "im.zip: entry '/etc/x.png' leads outside the zip"),
    ("zip: .. in a name", zipped(("cat/../../x.png", b"x")), "im.zip: entry 'cat/../../x.png' leads outside the zip"),
    ("zip: .. by backslash", zipped(("cat\\..\\x.png", b"x")), "leads outside the zip"),
    ("zip: encrypted", encrypted, "im.zip: entry 'cat/0.png' is encrypted"),
    ("zip: name twice", twice_in_zip, "im.zip: entry 'cat/0.png' occurs twice"),
    ("zip: no such folder", zipped(inside="photos"), "im.zip/photos: no images; check the path"),
    ("folder: no such folder", foldered({"inside": "photos"}), "no folder 'photos' in"),
    ("inside leads outside", foldered({"inside": "../im"}), "'../im' leads outside"),
]


ARGUMENTS = [
    ({"size": [0, 4]}, r"size=\[0, 4\]: give \[height, width\]"),
    ({"classes": ["a", "a"]}, r"classes=\['a', 'a'\]: give distinct names"),
    ({"classes": []}, "give distinct names, at least one"),
    ({"mode": "CMYK"}, "mode='CMYK'"),
    ({"patient": "("}, r"patient='\(' is not a regular expression"),
    ({"site": "(.*)"}, r"site='\(\.\*\)' has no group \(\?P<site>\.\.\.\)"),
]


@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
@pytest.mark.parametrize(("make", "line"), [row[1:] for row in WHOLES], ids=[row[0] for row in WHOLES])
def test_a_bad_whole_is_always_refused(build, make, line, on_bad):
    with pytest.raises(DataError) as caught:
        build(make, on_bad).load()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("args", "line"), ARGUMENTS, ids=[str(case[0]) for case in ARGUMENTS])
def test_a_wrong_argument_is_refused_before_any_work(args, line):
    with pytest.raises(ConfigError, match=line):
        registry.build("source", "image_folder", given={"on_bad": "refuse"}, path="im", **args)


def test_more_images_than_memory_are_refused(build, monkeypatch):
    source = build(foldered(), "refuse")
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    with pytest.raises(DataError, match=r"^im: 4 images of \[3, 4, 4\] need 0\.0 GiB, this machine has 0\.0; give a"):
        source.load()


def test_without_pillow_the_remedy_is_named(build, monkeypatch):
    source = build(foldered(), "refuse")
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ConfigError, match="needs Pillow: pip install"):
        source.load()
