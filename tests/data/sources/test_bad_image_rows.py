"""Every kind of bad image or line of a list: the line that refuses it, and what is left when it is skipped."""

import io

import pytest
from image_cases import GOOD, HEAD, foldered, listed, sets
from tiny_images import image, noisy_jpeg, packed, put, two_classes

from fedimb.errors import DataError


def flipped_in_zip(folder):
    path = packed(folder / "im.zip", {"cat/0.png": image(1), "cat/1.png": image(200), "dog/0.png": image(2)})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(image(200), image(200)[:-20] + bytes(20), 1))
    return {"name": "image_folder", "path": "im.zip"}


def animated(folder):
    from PIL import Image

    out = io.BytesIO()
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    put(two_classes(folder / "im"), cat__2_png=out.getvalue())
    return {"name": "image_folder", "path": "im"}


CUT = noisy_jpeg()[:-500]


GLASS = image(shape=(4, 4, 4))


# name, what makes the source, part of the line; for bad rows also: lines listed and rows left when they are skipped
ROWS = [
    ("csv: missing file", listed(HEAD + GOOD + "cat/9.png,cat\n"), "im/list.csv row 6: 'cat/9.png' is not in", 1, 4),
    ("csv: path outside", listed(HEAD + GOOD + "../x.png,cat\n"), "row 6: '../x.png' leads outside the folder", 1, 4),
    ("csv: absolute path", listed(HEAD + GOOD + "/far/x.png,cat\n"), "row 6: '/far/x.png' is absolute", 1, 4),
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
        "row 6: 'cat/0.png' is already listed in im/list.csv row 2",
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
        "row 6: split 'holdout' is not one of train, validation, test",
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
        "row 4: a test image of a patient who also has training rows (im/list.csv row 2)",
        1,
        3,
    ),
    ("zero bytes", foldered(cat__2_png=b""), "im/cat/2.png: is empty (0 bytes)", 1, 4),
    (
        "text named .png",
        foldered(cat__2_png=b"hello"),
        "im/cat/2.png: cannot be decoded (not an image format that Pillow",
        1,
        4,
    ),
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
        "im/cat/x.png: the expression",
        1,
        4,
    ),
    ("folder: patient on both sides", sets("cat/p1", "dog/p3"), "im/test/cat/p1.png: a test image of a patient", 1, 3),
    ("zip: damaged entry", flipped_in_zip, "im.zip/cat/1.png: is damaged in the zip (Bad CRC-32", 1, 2),
]


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
