"""Folders of 4 x 4 images, and good files made bad."""

import io
import zipfile
from pathlib import Path

import numpy as np


def image(value: int = 100, shape: tuple[int, ...] = (4, 4, 3), kind: str = "PNG", mode: str | None = None) -> bytes:
    """The bytes of an image file of one value."""
    from PIL import Image

    picture = Image.fromarray(np.full(shape, value, dtype=np.uint8))
    out = io.BytesIO()
    (picture if mode is None else picture.convert(mode)).save(out, kind)
    return out.getvalue()


def noisy_jpeg() -> bytes:
    """A JPEG long enough to be cut in the middle of its pixels."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()


def put(folder: Path, **files: bytes | str) -> Path:
    """Write files; ``__`` in a name is a slash and ``_png`` at its end is the suffix."""
    for name, content in files.items():
        file = folder / name.replace("__", "/").replace("_png", ".png").replace("_csv", ".csv")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def two_classes(folder: Path) -> Path:
    """cat/0.png, cat/1.png, dog/0.png, dog/1.png below ``folder``."""
    return put(folder, cat__0_png=image(1), cat__1_png=image(2), dog__0_png=image(3), dog__1_png=image(4))


def packed(path: Path, entries: dict[str, bytes]) -> Path:
    """A zip of exactly these entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path
