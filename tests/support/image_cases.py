"""Cases of image sources: functions that fill a folder and return the source's name and arguments."""

from tiny_images import image, packed, put, two_classes

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
