"""Folders of Hugging Face data sets: written by ``save_to_disk``, or Parquet files by split with a dataset card."""

import json
import re
from pathlib import Path
from typing import Any

from fedimb.errors import ConfigError, DataError, nearest

SAVED = ("dataset_dict.json", "state.json")
"""Files that ``save_to_disk`` writes, of several splits and of one."""
_CARD = "README.md"
_SHARD = re.compile(r"(?P<split>[A-Za-z_]\w*?)(-\d+-of-\d+)?(-[0-9a-f]{16})?")
_NO_SPLIT = {"data", "default", "part", "shard"}


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``."""
    return any((folder / name).is_file() for name in SAVED)


def is_parquet_layout(folder: Path) -> bool:
    """Whether a folder holds Parquet files as the hub has them: by split, in shards, or with a card that lists them."""
    files = _parquet(folder)
    sharded = any(re.search(r"-\d+-of-\d+", file.stem) for file in files)
    below = any(file.parent != folder for file in files)
    return bool(files) and (sharded or below or bool(card(folder).keys() & {"configs", "dataset_info"}))


def card(folder: Path) -> dict[str, Any]:
    """The settings at the head of a dataset card; empty if there is no card, or nothing at its head."""
    import yaml

    try:
        text = (folder / _CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.S)
    try:
        found = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError as error:
        raise DataError(f"{folder / _CARD} has a head that is not YAML ({' '.join(str(error).split())})") from None
    return found if isinstance(found, dict) else {}


def parquet_splits(folder: Path, subset: str | None) -> dict[str, list[Path]]:
    """Files by split: as the card lists them, else by name (``train-00000-of-00002.parquet``, ``test/0000.parquet``).

    Args:
        subset: the card's configuration; None: ``default``, or the only one.

    Raises:
        DataError: no such configuration, or no files.
    """
    configs = {str(one.get("config_name", "default")): one for one in card(folder).get("configs") or [] if one}
    if subset is not None and subset not in configs:
        raise DataError(f"{folder} has no configuration '{subset}' in its card.{nearest(subset, configs)}")
    if subset is None and len(configs) > 1 and "default" not in configs:
        raise DataError(f"{folder} has the configurations {', '.join(configs)}: name one (data.source.subset)")
    chosen = configs.get(subset or ("default" if "default" in configs else next(iter(configs), "")), {})
    splits: dict[str, list[Path]] = {}
    listed = chosen.get("data_files")
    for one in listed if isinstance(listed, list) else []:
        patterns = one["path"] if isinstance(one["path"], list) else [one["path"]]
        found = sorted({file for pattern in patterns for file in folder.glob(str(pattern)) if file.is_file()})
        splits[str(one.get("split", "train"))] = found
    if not splits:
        for file in _parquet(folder):
            splits.setdefault(_split_of(file, folder), []).append(file)
    if empty := [split for split, files in splits.items() if not files]:
        raise DataError(f"{folder} has no file of split '{empty[0]}', which its card lists; copy it completely")
    if not splits:
        raise DataError(f"{folder} has no .parquet files")
    return splits


def _split_of(file: Path, folder: Path) -> str:
    found = _SHARD.fullmatch(file.stem)
    name = found["split"] if found else ""
    if not name or name in _NO_SPLIT:
        above = file.parent.name
        name = "train" if file.parent == folder or above in _NO_SPLIT else above
    return name


def _parquet(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.rglob("*.parquet") if not any(p.startswith(".") for p in file.relative_to(folder).parts)
    )


def kinds_of_columns(folder: Path) -> dict[str, str]:
    """Column -> ``image``, ``label`` (ClassLabel), ``number``, ``list`` or ``other``, without reading any row.

    Raises:
        DataError: the files that say it are damaged. ConfigError: Parquet files without pyarrow installed.
    """
    try:
        if (folder / SAVED[0]).is_file():
            names = json.loads((folder / SAVED[0]).read_text(encoding="utf-8"))["splits"]
            features = _saved_features(folder / ("train" if "train" in names else names[0]))
        elif is_saved(folder):
            features = _saved_features(folder)
        else:
            features = _parquet_features(next(iter(parquet_splits(folder, None).values()))[0])
        return {name: _kind(feature) for name, feature in features.items()}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"{folder} is not a complete Hugging Face data set ({error}); copy it again") from error


def _saved_features(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))["features"]
    return found


def _parquet_features(file: Path) -> dict[str, Any]:
    """The features that the file itself holds; without them, by the types of its columns."""
    try:
        import pyarrow.parquet
        from pyarrow import types
    except ImportError:
        raise ConfigError(f"{file}: reading Parquet needs pyarrow: pip install 'fedimb[parquet]'") from None

    schema = pyarrow.parquet.read_schema(file)
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: dict[str, Any] = dict(told.get("info", {}).get("features") or {})
    for column in schema:
        number = types.is_integer(column.type) or types.is_floating(column.type) or types.is_boolean(column.type)
        features.setdefault(column.name, {"_type": "Value", "dtype": "float64" if number else str(column.type)})
    return features


def _kind(feature: Any) -> str:
    if isinstance(feature, list) or feature.get("_type") in ("Sequence", "List", "LargeList"):
        return "list"
    if feature.get("_type") in ("Image", "ClassLabel"):
        return "image" if feature["_type"] == "Image" else "label"
    number = re.fullmatch(r"u?int\d+|float\d*|double|bool", str(feature.get("dtype", "")))
    return "number" if number else "other"
