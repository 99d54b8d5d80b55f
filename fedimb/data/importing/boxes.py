"""Boxes around objects in pictures: Pascal VOC's XML files, COCO's JSON.

A box is in pixels of its picture, edges counted from 0 at the upper left, the right and lower edge outside: VOC's
``xmin`` 1, ``xmax`` 3 is 0 to 3 here, COCO's ``[0, 0, 3, 3]`` too. Classes go by their names, never by their ids:
COCO's ids have gaps.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fedimb.data.identifiers import identifier
from fedimb.data.problems import Problems
from fedimb.errors import ConfigError, DataError, nearest


@dataclass(frozen=True)
class Box:
    """One annotated object.

    Attributes:
        place: where it is annotated, for messages.
        picture: name of the picture's file, relative to the folder of pictures.
        label: name of its class.
        edges: (left, upper, right, lower) in pixels.
        size: (width, height) of the picture as annotated; None if that is not said.
        site, patient: of the picture; None if not asked for.
        left_out: why VOC or COCO says that it is no single object to be scored; "" for an ordinary one.
    """

    place: str
    picture: str
    label: str
    edges: tuple[float, float, float, float]
    size: tuple[int, int] | None = None
    site: str | None = None
    patient: str | None = None
    left_out: str = ""


@dataclass
class Boxes:
    """What a file or folder of annotations holds.

    Attributes:
        boxes: in the order of the files.
        classes: names that are declared, or in order of appearance if none are.
        pictures: names of all pictures that are listed, also those without a box.
    """

    boxes: list[Box] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)


def read_boxes(
    path: Path, problems: Problems, *, origin: int = 1, site: str | None = None, patient: str | None = None
) -> Boxes:
    """Read COCO's JSON file, one of VOC's XML files, or a folder of these.

    Args:
        problems: gets one line per box that cannot be used.
        origin: number of the first pixel of VOC's files: 1, or 0 as some programs write it.
        site, patient: keys of COCO's images that name the picture's site and patient.

    Raises:
        DataError: neither of the two, not readable, or ids and names that contradict each other.
        ConfigError: an origin other than 0 or 1; ``site`` or ``patient`` for VOC's files, which name none.
    """
    if origin not in (0, 1):
        raise ConfigError(f"origin={origin}: VOC's pixels are counted from 1, or from 0")
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.xml") if not file.name.startswith("."))
        if not files:
            raise DataError(f"{path} holds no .xml file of VOC: give that folder, or COCO's .json")
    elif path.suffix.lower() == ".xml":
        path, files = path.parent, [path]
    elif path.suffix.lower() == ".json":
        return _read_coco(path, problems, site, patient)
    else:
        raise DataError(f"{path}: give a folder of VOC's .xml files, or COCO's .json")
    if named := site or patient:
        raise ConfigError(f"VOC's files name no '{named}': sites and patients are read from COCO's images only")
    found, owners = Boxes(), dict[str, str]()
    for file in files:
        _read_voc(path, file, origin, found, owners, problems)
    found.classes = list(dict.fromkeys(box.label for box in found.boxes))
    return found


def _read_voc(root: Path, file: Path, origin: int, found: Boxes, owners: dict[str, str], problems: Problems) -> None:
    place = file.relative_to(root).as_posix()
    try:
        tree = ElementTree.fromstring(file.read_bytes())
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:
        raise DataError(f"{file} cannot be read as XML ({error})") from error
    name = (tree.findtext("filename") or "").strip()
    if tree.tag != "annotation" or not name:
        raise DataError(f"{file} is not an annotation of VOC: it names no <filename>")
    below = file.parent.relative_to(root).as_posix()
    picture = name if below == "." else f"{below}/{name}"
    if picture in owners:
        raise DataError(f"{place} and {owners[picture]} annotate the same picture '{name}': its objects would be twice")
    owners[picture] = place
    found.pictures.append(picture)
    sides = [_whole(tree.findtext(f"size/{side}")) for side in ("width", "height")]
    size = (sides[0], sides[1]) if all(sides) else None  # 0 x 0 is what some programs write where they do not know
    for number, node in enumerate(tree.iterfind("object"), 1):
        where = f"{place} object {number}"
        box = problems.guard(where, partial(_voc_box, where, picture, node, size, origin))
        if box is not None:
            found.boxes.append(box)


def _voc_box(place: str, picture: str, node: ElementTree.Element, size: tuple[int, int] | None, origin: int) -> Box:
    label = (node.findtext("name") or "").strip()
    if not label:
        raise DataError("it has no <name>")
    edges = [_number(node.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
    if any(math.isnan(edge) for edge in edges):
        raise DataError("its <bndbox> lacks a number: xmin, ymin, xmax, ymax")
    if origin == 1 and min(edges[:2]) < 1:
        raise DataError("xmin or ymin is below 1, and VOC counts pixels from 1: if these count from 0, give --origin 0")
    left, upper, right, lower = edges[0] - origin, edges[1] - origin, edges[2] + 1 - origin, edges[3] + 1 - origin
    why = "marked difficult" if (node.findtext("difficult") or "").strip() == "1" else ""
    return Box(place, picture, identifier(label), (left, upper, right, lower), size, left_out=why)


def _read_coco(file: Path, problems: Problems, site: str | None, patient: str | None) -> Boxes:
    try:
        tree = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error})") from error
    parts = {key: tree.get(key) if isinstance(tree, dict) else None for key in ("images", "annotations", "categories")}
    if lacking := [key for key, value in parts.items() if not isinstance(value, list)]:
        raise DataError(f"{file} is not COCO's: it lacks the list {' and '.join(lacking)}")
    names = {key: _text(one, "name", file) for key, one in _by_id(file, "categories", parts["categories"])}
    images = dict(_by_id(file, "images", parts["images"]))
    pictures = [_text(one, "file_name", file) for one in images.values()]
    for what, listed in (("categories", list(names.values())), ("images", pictures)):
        if twice := [name for name, count in Counter(listed).items() if count > 1]:
            raise DataError(f"{file}: two {what} have the name '{twice[0]}': they would be taken for one, or for two")
    found = Boxes(classes=[identifier(name) for name in names.values()], pictures=pictures)
    annotations = dict(_by_id(file, "annotations", parts["annotations"]))
    for key, one in annotations.items():
        where = f"{file.name} annotation {key}"
        box = problems.guard(where, partial(_coco_box, where, one, names, images, site, patient))
        if box is not None:
            found.boxes.append(box)
    return found


def _by_id(file: Path, what: str, listed: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(id, entry) of each. Raises DataError for an entry without an id, and for an id twice."""
    seen = set[str]()
    for number, one in enumerate(listed):
        if not isinstance(one, dict) or isinstance(one.get("id"), bool) or not isinstance(one.get("id"), (int, str)):
            raise DataError(f"{file}: entry {number} of {what} has no id")
        key = identifier(one["id"])
        if key in seen:
            raise DataError(f"{file}: two {what} have the id {key}")
        seen.add(key)
        yield key, one


def _coco_box(
    place: str,
    one: Mapping[str, Any],
    names: Mapping[str, str],
    images: Mapping[str, Mapping[str, Any]],
    site: str | None,
    patient: str | None,
) -> Box:
    category, image = identifier(str(one.get("category_id"))), identifier(str(one.get("image_id")))
    if category not in names:
        raise DataError(f"category {category} is not one of the categories ({', '.join(list(names)[:6])}, ...)")
    if image not in images:
        raise DataError(f"image {image} is not one of the images")
    about = images[image]
    sides = [_number(side) for side in box] if isinstance(box := one.get("bbox"), list) else []
    if len(sides) != 4 or not all(map(math.isfinite, sides)):
        raise DataError("it has no bbox of four numbers [left, upper, width, height]")
    left, upper, width, height = sides
    size = [_whole(about.get(side)) for side in ("width", "height")]
    return Box(
        place,
        _text(about, "file_name", Path(place)),
        identifier(names[category]),
        (left, upper, left + width, upper + height),
        (size[0], size[1]) if all(size) else None,
        None if site is None else _named(about, site),
        None if patient is None else _named(about, patient),
        "a group (iscrowd)" if one.get("iscrowd") in (1, True) else "",
    )


def _named(about: Mapping[str, Any], key: str) -> str:
    value = about.get(key)
    if not isinstance(value, (str, int)) or isinstance(value, bool) or value == "":
        raise DataError(f"its image has no '{key}'.{nearest(key, list(map(str, about)))}")
    return identifier(value)


def _text(one: Mapping[str, Any], key: str, file: Path) -> str:
    if not isinstance(value := one.get(key), str) or not value.strip():
        raise DataError(f"{file}: {key} of id {one.get('id')} is not a text")
    return value.strip()


def _number(value: object) -> float:
    """A finite number; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        number = float(value)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _whole(value: object) -> int:
    """A whole number above 0; 0 for anything else."""
    number = _number(value)
    return int(number) if number > 0 and number == int(number) else 0
