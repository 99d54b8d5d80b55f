"""Every kind of bad image, folder, zip and list: the line that refuses it, and what is left when it is skipped."""

import io
import zipfile

import pytest
from tiny_images import image, noisy_jpeg, packed, put, two_classes

from fedimb import registry
from fedimb.errors import ConfigError, DataError

HEAD = "path,label\n"
GOOD = "cat/0.png,cat\ncat/1.png,cat\ndog/0.png,dog\ndog/1.png,dog\n"


def listed(text, **args):
    """A case of image_csv: the four good images and this list."""

    def make(folder):
        two_classes(folder / "im")
        (folder / "im" / "list.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return {"name": "image_csv", "path": "im/list.csv", **args}

    return make


def foldered(args=None, **files):
    """A case of image_folder: the four good images and these files."""

    def make(folder):
        put(two_classes(folder / "im"), **files)
        return {"name": "image_folder", "path": "im", **(args or {})}

    return make


def zipped(*entries, **args):
    """A case of image_folder: a zip of two good images and these entries."""

    def make(folder):
        packed(folder / "im.zip", {"cat/0.png": image(), "dog/0.png": image(), **dict(entries)})
        return {"name": "image_folder", "path": "im.zip", **args}

    return make


def sets(*test_names, **args):
    """A case of image_folder: p1 and p2 in train/, these in test/."""

    def make(folder):
        put(folder / "im", train__cat__p1_png=image(), train__dog__p2_png=image())
        put(folder / "im", **{f"test__{name}_png": image() for name in test_names})
        return {"name": "image_folder", "path": "im", "patient": r"(?P<patient>p\d)", **args}

    return make


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


def flipped_in_zip(folder):
    path = packed(folder / "im.zip", {"cat/0.png": image(1), "cat/1.png": image(200), "dog/0.png": image(2)})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(image(200), image(200)[:-20] + bytes(20), 1))
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


def animated(folder):
    from PIL import Image

    out = io.BytesIO()
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    put(two_classes(folder / "im"), cat__2_png=out.getvalue())
    return {"name": "image_folder", "path": "im"}


CUT = noisy_jpeg()[:-500]
GLASS = image(shape=(4, 4, 4))
WIDE = image(shape=(4, 5, 3))

# name, what makes the source, part of the line; for bad rows also: lines listed and rows left when they are skipped
ROWS = [
    ("csv: missing file", listed(HEAD + GOOD + "cat/9.png,cat\n"), "im/list.csv row 6: 'cat/9.png' is not in", 1, 4),
    ("csv: path outside", listed(HEAD + GOOD + "../x.png,cat\n"), "row 6: '../x.png' leads outside the folder", 1, 4),
    ("csv: absolute path", listed(HEAD + GOOD + "/tmp/x.png,cat\n"), "row 6: '/tmp/x.png' is absolute", 1, 4),
    ("csv: drive letter", listed(HEAD + GOOD + "C:\\x.png,cat\n"), "row 6: 'C:\\x.png' is absolute", 1, 4),
    ("csv: empty path", listed(HEAD + GOOD + ",cat\n"), "row 6: the path is empty", 1, 4),
    ("csv: path of a folder", listed(HEAD + GOOD + "cat,cat\n"), "row 6: 'cat' cannot be read (Is a directory)", 1, 4),
    ("csv: empty label", listed(HEAD + GOOD + "cat/9.png,\n"), "row 6: the label of 'cat/9.png' is empty", 1, 4),
    (
        "csv: label outside the list",
        listed(HEAD + GOOD + "cat/9.png,dgo\n", classes=["cat", "dog"]),
        "row 6: label 'dgo' is not in classes. Did you mean 'dog'?",
        1,
        4,
    ),
    (
        "csv: class id outside the list",
        listed(HEAD + GOOD + "cat/9.png,2\n", classes=["cat", "dog"]),
        "row 6: label 2 is outside the class ids 0 to 1",
        1,
        4,
    ),
    ("csv: ragged row", listed(HEAD + GOOD + "cat/9.png\n"), "row 6: 1 fields where the table has 2 columns", 1, 4),
    (
        "csv: file twice",
        listed(HEAD + GOOD + "./cat/0.png,cat\n"),
        "row 6: 'cat/0.png' is listed before, in im/list.csv row 2",
        1,
        4,
    ),
    (
        "csv: file twice with two labels",
        listed(HEAD + GOOD + "cat/0.png,dog\n"),
        "2 bad rows: im/list.csv row 2: 'cat/0.png' is 'cat' here and 'dog' in im/list.csv row 6",
        2,
        3,
    ),
    (
        "csv: unknown split",
        listed("path,label,split\n" + "".join(f"{row},train\n" for row in GOOD.split()) + "cat/9.png,cat,holdout\n"),
        "row 6: split 'holdout' is none of train, validation, test",
        1,
        4,
    ),
    (
        "csv: empty site",
        listed("path,label,site\n" + "".join(f"{row},a\n" for row in GOOD.split()) + "cat/9.png,cat, \n"),
        "row 6: the site of 'cat/9.png' is empty",
        1,
        4,
    ),
    (
        "csv: patient on both sides",
        listed(
            "path,label,split,patient\ncat/0.png,cat,train,7\ndog/0.png,dog,train,8\ncat/1.png,cat,test,7\n"
            "dog/1.png,dog,test,9\n"
        ),
        "row 4: a test image of a patient who is also trained on (im/list.csv row 2)",
        1,
        3,
    ),
    ("zero bytes", foldered(cat__2_png=b""), "im/cat/2.png: is empty (0 bytes)", 1, 4),
    ("text named .png", foldered(cat__2_png=b"hello"), "im/cat/2.png: cannot be decoded (not an image Pillow", 1, 4),
    ("truncated", foldered(cat__2_png=CUT), "im/cat/2.png: cannot be decoded (image file is truncated", 1, 4),
    ("transparent", foldered(cat__2_png=GLASS), "im/cat/2.png: has transparent pixels", 1, 4),
    ("CMYK", foldered(cat__2_png=image(kind="JPEG", mode="CMYK")), "im/cat/2.png: is of mode CMYK: save it as", 1, 4),
    ("16 bit", foldered(cat__2_png=image(kind="TIFF", shape=(4, 4), mode="I;16")), "2.png: is of mode I;16", 1, 4),
    ("animated", animated, "im/cat/2.png: has 2 frames: give one image per file", 1, 4),
    ("notes among images", foldered(cat__notes=b"x"), "im/cat/notes: not an image file by its name", 1, 4),
    ("image outside the classes", foldered(x_png=image()), "im/x.png: an image outside the class folders", 1, 4),
    (
        "unknown class folder",
        foldered({"classes": ["cat", "dog"]}, dgo__0_png=image()),
        "im/dgo/0.png: folder 'dgo' is not in classes. Did you mean 'dog'?",
        1,
        4,
    ),
    (
        "no patient in the path",
        foldered({"patient": r"(?P<patient>\d+)\.png"}, cat__x_png=image()),
        "im/cat/x.png: no patient in this path by the expression",
        1,
        4,
    ),
    ("folder: patient on both sides", sets("cat/p1", "dog/p3"), "im/test/cat/p1.png: a test image of a patient", 1, 3),
    ("zip: damaged entry", flipped_in_zip, "im.zip/cat/1.png: is damaged in the zip (Bad CRC-32", 1, 2),
]
WHOLES = [
    ("no such file", nothing, "no 'im' in the current folder ("),
    ("csv: empty", listed(""), "im/list.csv is empty"),
    ("csv: header alone", listed(HEAD), "im/list.csv has a header and no rows"),
    ("csv: no header", listed(GOOD), "path_column names 'path', which is no column of im/list.csv"),
    ("csv: column missing", listed("path,labels\n" + GOOD), "no column of im/list.csv. Did you mean 'labels'?"),
    (
        "csv: column of a name missing",
        listed(HEAD + GOOD, site_column="hospital"),
        "site_column names 'hospital', which is no column of",
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
    ("linked folder", linked_twice, "'cat' and 'eel' are one folder; remove the link"),
    ("not a zip", not_a_zip, "im.zip is no folder and no zip file, or a damaged one"),
    ("zip: absolute name", zipped(("/etc/x.png", b"x")), "im.zip: entry '/etc/x.png' leads outside the zip"),
    ("zip: .. in a name", zipped(("cat/../../x.png", b"x")), "im.zip: entry 'cat/../../x.png' leads outside the zip"),
    ("zip: .. by backslash", zipped(("cat\\..\\x.png", b"x")), "leads outside the zip"),
    ("zip: encrypted", encrypted, "im.zip: entry 'cat/0.png' is encrypted"),
    ("zip: name twice", twice_in_zip, "im.zip: entry 'cat/0.png' is there twice"),
    ("zip: no such folder", zipped(inside="photos"), "im.zip/photos: no images; check the path"),
    ("folder: no such folder", foldered({"inside": "photos"}), "no folder 'photos' in"),
    ("inside leads outside", foldered({"inside": "../im"}), "'../im' leads outside"),
]
ARGUMENTS = [
    ({"size": [0, 4]}, r"size=\[0, 4\]: give \[height, width\]"),
    ({"classes": ["a", "a"]}, r"classes=\['a', 'a'\]: give distinct names"),
    ({"classes": []}, "give distinct names, at least one"),
    ({"mode": "CMYK"}, "mode='CMYK'"),
    ({"patient": "("}, r"patient='\(' is no regular expression"),
    ({"site": "(.*)"}, r"site='\(\.\*\)' has no group \(\?P<site>\.\.\.\)"),
]


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A case to its source, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDIMB_DATA_DIR", raising=False)

    def make(case, on_bad):
        args = case(tmp_path)
        name = args.pop("name")
        return registry.build("source", name, given={"on_bad": on_bad}, **args)

    return make


@pytest.mark.parametrize(("make", "line", "bad", "left"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_bad_row_is_refused_or_counted(build, make, line, bad, left):
    with pytest.raises(DataError) as caught:
        build(make, "refuse").load()
    said = str(caught.value)
    assert line in said
    assert said.startswith(f"{bad} bad row{'s' * (bad > 1)}: ")
    assert "\n" not in said
    data = build(make, "skip").load()
    assert len(data.skipped) == bad
    assert line.removeprefix(f"{bad} bad rows: ") in data.skipped[0]
    assert len(data.x) == len(data.y) == left


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
