"""Hugging Face data sets in a folder: which columns are images, features and labels."""

from pathlib import Path

from fedimb.data.importing.columns import LABEL, PATIENT, SITE, called
from fedimb.data.importing.found import Found
from fedimb.data.sources.huggingface_files import is_parquet_layout, is_saved, kinds_of_columns, parquet_splits
from fedimb.errors import ConfigError
from fedimb.plain import Settings

_HELD_OUT = ("test", "testing", "validation", "valid", "val")


def find_hugging_face(path: Path, given: Settings) -> Found | None:
    """How to read a folder of ``save_to_disk``, or of Parquet files by split with a dataset card; None: it is none."""
    saved = is_saved(path)
    if not saved and not is_parquet_layout(path):
        return None
    kinds = kinds_of_columns(path)
    what = "written by save_to_disk" if saved else "in Parquet files by split"
    found = Found(f"a Hugging Face data set {what}", {"name": "huggingface", "path": str(path)} | given)
    _choose_label(found, kinds, given)
    for setting, words in (("site", SITE), ("patient", PATIENT)):
        if setting not in given:
            name = called(kinds, words)
            found.choose(setting, name, "by its name" if name else "")
    _choose_rows(found, kinds, given)
    if not saved and "test_split" not in given:
        splits = parquet_splits(path, given.get("subset"))
        if "test" not in splits and (other := next((name for name in _HELD_OUT if name in splits), None)):
            found.choose("test_split", other, f"the splits are {', '.join(splits)}")
    return found


def _choose_label(found: Found, kinds: dict[str, str], given: Settings) -> None:
    if "label" in given:
        return
    labels = [name for name, kind in kinds.items() if kind == "label"]
    name = called(labels, LABEL) or (labels[0] if len(labels) == 1 else None)
    if name is None and not labels:
        name = called(kinds, LABEL)
    if name is None:
        raise ConfigError(
            f"{found.layout} has the columns {', '.join(kinds)}: say which one is the label: label=COLUMN"
        )
    sure = kinds[name] == "label" and len(labels) == 1
    found.choose("label", name, "" if sure else "by its name")


def _choose_rows(found: Found, kinds: dict[str, str], given: Settings) -> None:
    """The image column, else all columns of numbers that have no other part."""
    images = [name for name, kind in kinds.items() if kind == "image"]
    if "image" in given or "features" in given or images:
        image = given.get("image", images[0] if images and not given.get("features") else None)
        found.choose("image", image, f"one of {', '.join(images)}" if len(images) > 1 and "image" not in given else "")
        found.images = image is not None
        return
    taken = {found.source.get(setting) for setting in ("label", "site", "patient")}
    numbers = [name for name, kind in kinds.items() if kind == "number" and name not in taken]
    if not numbers:
        raise ConfigError(f"{found.layout} has no column of images or numbers ({', '.join(kinds)}): encode it first")
    found.choose("image", None)
    found.choose("features", numbers)
    if others := [name for name in kinds if name not in {*numbers, *taken}]:
        found.unsure.append(f"features: {', '.join(others)} are not numbers and are not used")
