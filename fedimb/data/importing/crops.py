"""Crops of annotated boxes: detection becomes the classification of objects, which a federation can be scored on."""

import csv
import io
import math
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fedimb.data.importing.boxes import Box, Boxes
from fedimb.data.problems import Problems
from fedimb.data.sources.files import with_progress
from fedimb.data.sources.image_files import Files, clean_name
from fedimb.data.sources.pictures import Pixels, decode, load_pillow, turned_by
from fedimb.errors import ConfigError, DataError

SAME = 0.9
"""Overlap (intersection over union) from which two boxes of a picture are taken for the same object."""
_ROUNDING = 1.0
"""Pixels that a box may reach beyond its picture: annotations are rounded, and so are sizes."""


@dataclass
class Crops:
    """What was cut.

    Attributes:
        counts: crops by class, in the order of the classes; declared classes without one have 0.
        pictures: pictures with a crop.
        without: pictures that are listed and have no box, of any class.
        trimmed: boxes that reached up to a pixel beyond their picture, and were cut at its edge.
        small: crops with a side below 8 pixels.
        left_out: how many boxes were left out as the annotations or settings say, by reason.
        skipped: boxes that cannot be used, with place and reason.
    """

    counts: dict[str, int]
    pictures: int = 0
    without: int = 0
    trimmed: int = 0
    small: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class CropSettings:
    """How boxes are cut.

    Args:
        context: share of a box's width and height that is added on each side, as far as the picture goes.
        min_side: boxes with a shorter side, in pixels, are left out.
        difficult: whether boxes that VOC marks as difficult are kept.
        mode: RGB, or L (grey).
        classes: only these are cut, in this order; None: all.

    Raises:
        ConfigError: one out of range.
    """

    context: float = 0.0
    min_side: int = 1
    difficult: bool = False
    mode: str = "RGB"
    classes: tuple[str, ...] | None = None

    def asks_for(self, box: Box) -> bool:
        """Whether the class of a box is one of those that are cut."""
        return self.classes is None or box.label in self.classes

    def __post_init__(self) -> None:
        if not (math.isfinite(self.context) and 0 <= self.context <= 10):
            raise ConfigError(f"--context {self.context:g}: give a share of the box's sides, 0 to 10")
        if self.min_side < 1:
            raise ConfigError(f"--min-side {self.min_side}: give at least 1 pixel")
        if self.mode not in ("RGB", "L"):
            raise ConfigError(f"--mode {self.mode}: give RGB or L (grey)")


def write_crops(found: Boxes, pictures: Files, to: Path, settings: CropSettings, problems: Problems) -> Crops:
    """Cut every box out of its picture into ``to``: 000001.png, ... and crops.csv, which ``data=image_csv`` reads.

    crops.csv has the columns path, label, patient, site (where known), picture and box. Crops of one picture, or of one
    patient where the annotations name them, have one patient: they never lie on two sides of a split.

    Args:
        pictures: the folder or .zip of pictures.
        to: a folder that is not there yet, or is empty. It appears whole or not at all.

    Raises:
        DataError: boxes that cannot be used (unless ``problems`` skips them), or none that can.
        ConfigError: ``to`` is not empty, or the settings ask for a class that no box and no category has.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to} is there already: give a new folder")
    classes = found.classes if settings.classes is None else settings.classes
    if unknown := [name for name in classes if name not in found.classes]:
        raise ConfigError(f"--classes {','.join(unknown)}: there are {', '.join(found.classes)}")
    done = Crops(dict.fromkeys(classes, 0), without=len(set(found.pictures) - {b.picture for b in found.boxes}))
    kept = _kept(found.boxes, settings, problems, done)
    to.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    try:
        rows = [
            row
            for picture, boxes in with_progress(list(kept.items()), "cutting boxes")
            for row in _cut(picture, boxes, pictures, made, settings, problems, done)
        ]
        done.skipped = problems.settle(len(rows))
        if not rows:
            reasons = "".join(f"; {n} {why}" for why, n in done.left_out.items() if n)
            raise DataError(f"no box is left to be cut{reasons}")
        _write_list(made / "crops.csv", rows)
        made.chmod(0o755)
        if to.exists():
            to.rmdir()
        os.replace(made, to)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    done.pictures = len({row["picture"] for row in rows})
    return done


def _kept(boxes: Sequence[Box], settings: CropSettings, problems: Problems, done: Crops) -> dict[str, list[Box]]:
    """Boxes by picture, without those that are left out and those that are another's again.

    Boxes of classes that are not asked for are compared with the others before they go: an object annotated as two
    classes is in doubt whichever of them is asked for.
    """
    by_picture: dict[str, list[Box]] = defaultdict(list)
    for box in boxes:
        asked = settings.asks_for(box)
        done.left_out["of classes not asked for"] += not asked
        if box.left_out and not (settings.difficult and box.left_out == "marked difficult"):
            done.left_out[box.left_out] += asked
        elif box.edges[0] >= box.edges[2] or box.edges[1] >= box.edges[3]:
            if asked:
                problems.add(box.place, f"its box {_shown(box)} has no area")
        elif asked and min(box.edges[2] - box.edges[0], box.edges[3] - box.edges[1]) < settings.min_side:
            done.left_out[f"with a side below {settings.min_side} pixels, of class {box.label}"] += 1
        else:
            by_picture[box.picture].append(box)
    kept = {picture: _once(held, settings, problems, done) for picture, held in by_picture.items()}
    return {picture: held for picture, held in kept.items() if held}


def _once(boxes: Sequence[Box], settings: CropSettings, problems: Problems, done: Crops) -> list[Box]:
    """The boxes of a picture that are asked for, without a second one of the same object. Two classes for one object:
    neither is used."""
    asked = [settings.asks_for(box) for box in boxes]
    twice, doubted = set[int](), set[int]()
    for i, one in enumerate(boxes):
        for j in range(i):
            if not (asked[i] or asked[j]) or overlap(one.edges, boxes[j].edges) < SAME:
                continue
            if one.label == boxes[j].label:
                twice.add(i)
            elif not {i, j} <= doubted:
                doubted |= {i, j}
                first = boxes[j]
                problems.add(one.place, f"the same box as in {first.place}: '{one.label}' here, '{first.label}' there")
    done.left_out["annotated twice"] += len(twice - doubted)
    return [box for i, box in enumerate(boxes) if asked[i] and i not in twice | doubted]


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, upper, right, lower), in [0, 1].

    Example:
        >>> overlap((0, 0, 2, 2), (1, 0, 3, 2))
        0.3333333333333333
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (sum(areas) - shared)


def _cut(
    picture: str,
    boxes: Sequence[Box],
    pictures: Files,
    folder: Path,
    settings: CropSettings,
    problems: Problems,
    done: Crops,
) -> list[dict[str, str]]:
    """Write the crops of one picture; a row of the list for each."""
    try:
        data = pictures.read(clean_name(picture))
        pixels = decode(data, settings.mode, None)
        orientation = turned_by(data)
    except DataError as error:
        problems.add(f"picture '{picture}'", str(error))
        return []
    rows = []
    for box in boxes:
        edges = problems.guard(box.place, partial(_inside, box, pixels, orientation, settings.context, done))
        if edges is None:
            continue
        left, upper, right, lower = edges
        name = f"{sum(done.counts.values()) + 1:06d}.png"
        _write_png(folder / name, pixels[:, upper:lower, left:right])
        done.counts[box.label] = done.counts.get(box.label, 0) + 1
        done.small += min(right - left, lower - upper) < 8
        row = {"path": name, "label": box.label, "patient": box.patient or picture}
        if box.site is not None:
            row["site"] = box.site
        rows.append(row | {"picture": picture, "box": " ".join(map(str, edges))})
    return rows


def _inside(box: Box, pixels: Pixels, orientation: int, context: float, done: Crops) -> tuple[int, int, int, int]:
    """Whole pixels (left, upper, right, lower) of a box and its context.

    Args:
        pixels: the picture as it is shown.
        orientation: its Exif entry (`fedimb.data.sources.pictures.turned_by`).

    Raises:
        DataError: the box is of a picture of another size, reaches beyond it, or may be of the picture as it is stored.
    """
    height, width = pixels.shape[1:]
    if box.size is not None and box.size != (width, height):
        turned = "; turned by its Exif entry?" if box.size == (height, width) else ""
        raise DataError(
            f"'{box.picture}' is {width} x {height} pixels, annotated as {box.size[0]} x {box.size[1]}: its boxes are "
            f"of another size{turned}"
        )
    if orientation != 1 and (box.size is None or orientation < 5 or height == width):  # else the size tells which
        raise DataError(
            f"'{box.picture}' is shown turned or mirrored by its Exif entry (orientation {orientation}), and nothing "
            "tells whether the box was drawn on the picture as stored or as shown: save the picture as its boxes were "
            "drawn, without that entry"
        )
    left, upper, right, lower = box.edges
    beyond = max(-left, -upper, right - width, lower - height)
    if beyond > _ROUNDING:
        raise DataError(f"its box {_shown(box)} reaches beyond the picture of {width} x {height} pixels")
    done.trimmed += beyond > 0
    across, down = context * (right - left), context * (lower - upper)
    first = max(0, math.floor(left - across)), max(0, math.floor(upper - down))
    last = min(width, math.ceil(right + across)), min(height, math.ceil(lower + down))
    if first[0] >= last[0] or first[1] >= last[1]:
        raise DataError(f"its box {_shown(box)} has no pixel in the picture of {width} x {height} pixels")
    return *first, *last


def _shown(box: Box) -> str:
    return "{:g},{:g} to {:g},{:g}".format(*box.edges)


def _write_png(file: Path, pixels: Pixels) -> None:
    image = load_pillow().fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0).copy())
    image.save(file, "PNG")


def _write_list(file: Path, rows: Sequence[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    file.write_text(text.getvalue(), encoding="utf-8")
