"""Which layout a path has."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from fedimb import registry
from fedimb.data.importing.found import Found
from fedimb.data.importing.hugging_face import find_hugging_face
from fedimb.data.importing.table_layouts import find_database, find_dicom_list, find_table, find_tables_of_sites
from fedimb.data.sources.image_files import open_files
from fedimb.data.sources.image_folder import IMAGES
from fedimb.data.sources.leaf_json import KEYS
from fedimb.data.sources.npz_file import NpzFile, says_signals
from fedimb.data.sources.table_formats import TABLES
from fedimb.errors import ConfigError, DataError
from fedimb.plain import Settings

DATABASES = (".db", ".sqlite", ".sqlite3", ".duckdb", ".ddb")
DICOM = (".dcm", ".dicom", ".ima")
LOOKED_FOR = (
    "tables (.csv, .tsv, .txt, .arff, KEEL .dat, .parquet, .arrow), databases (.db, .sqlite, .duckdb), arrays (.npz), "
    "pictures in class folders (also in a .zip) or listed in a CSV, DICOM files listed in a CSV, shards "
    "(train/0.npz), LEAF's .json, Hugging Face data sets (save_to_disk, or Parquet files by split)"
)
_X = ("x", "data", "features", "images", "embeddings", "emb")
_Y = ("y", "label", "labels", "target", "targets")


def find_layout(path: Path, given: Settings) -> Found:
    """How to read what is at ``path``.

    Args:
        path: an existing file or folder.
        given: settings of the source that the user chose; they are kept.

    Raises:
        DataError: it has no layout that is known; the message lists those that are. ConfigError: a choice is needed.
    """
    found = _folder(path, given) if path.is_dir() else _file(path, given)
    takes = registry.parameters("source", found.source["name"])
    for key in given:
        if key not in takes:
            raise ConfigError(f"{path} is {found.layout}; source '{found.source['name']}' has no setting '{key}'")
    return found


def _file(path: Path, given: Settings) -> Found:
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return find_table(path, given)
    if suffix in DATABASES:
        return find_database(path, given)
    if suffix == ".npz":
        return _npz(path, given)
    if suffix == ".json":
        return _leaf(path, [path], given)
    if suffix == ".zip":
        return _pictures(path, given) or _unknown(path)
    return _unknown(path)


def _folder(path: Path, given: Settings) -> Found:
    checks: tuple[Callable[[Path, Settings], Found | None], ...] = (
        find_hugging_face,
        _shards,
        _leaf_folder,
        _dicom,
        _listed,
        _pictures,
        _tables,
    )
    for check in checks:
        if (found := check(path, given)) is not None:
            return found
    return _unknown(path)


def _unknown(path: Path) -> Found:
    raise DataError(f"{path} is nothing that fedimb knows. Looked for: {LOOKED_FOR}")


def _shards(path: Path, given: Settings) -> Found | None:
    train = given.get("train_folder", "train")
    if not train or not any((path / train).glob("*.npz")):
        return None
    files = list((path / train).glob("*.npz"))
    return Found(f"{len(files)} shards, one .npz per client", {"name": "shards", "path": str(path)} | given)


def _leaf_folder(path: Path, given: Settings) -> Found | None:
    inside = path / "train" if (path / "train").is_dir() else path
    files = sorted(inside.glob("*.json"))
    return _leaf(path, files, given) if files and _is_leaf(files[0]) else None


def _is_leaf(file: Path) -> bool:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and set(KEYS) <= set(content)


def _leaf(path: Path, files: list[Path], given: Settings) -> Found:
    if not _is_leaf(files[0]):
        raise DataError(f"{files[0]} is not complete JSON with {', '.join(KEYS)}, as LEAF's. Looked for: {LOOKED_FOR}")
    found = Found(f"LEAF's JSON ({len(files)} files)", {"name": "leaf_json", "path": str(path)} | given)
    if "shape" not in given:
        side = _square(files[0])
        doubt = (
            f"rows have {side * side} values, as grey pictures of {side} x {side}; null keeps them flat" if side else ""
        )
        found.choose("shape", [1, side, side] if side else None, doubt)
    return found


def _square(file: Path) -> int:
    """The side of square pictures that the rows of a file may be; 0: none."""
    data = json.loads(file.read_text(encoding="utf-8-sig"))["user_data"]
    row = next((rows["x"][0] for rows in data.values() if isinstance(rows, dict) and rows.get("x")), 0)
    width = len(row) if isinstance(row, list) and not (row and isinstance(row[0], list)) else 0
    side = round(width**0.5)
    return side if side >= 8 and side * side == width else 0


def _npz(path: Path, given: Settings) -> Found:
    with NpzFile(str(path)) as arrays:
        keys = list(arrays.keys)
        if any(key.startswith(("train_images", "test_images")) for key in keys):
            return Found("arrays in MedMNIST's layout", {"name": "npz", "path": str(path)} | given, [], True)
        names = given.get("arrays") or {}
        x = names.get("x") or next((key for key in _X if key in keys), None)
        y = names.get("y") or next((key for key in _Y if key in keys), None)
        if x is None or y is None:
            raise ConfigError(
                f"{path} holds {', '.join(keys) or 'nothing'}: say which arrays are rows and labels with "
                "arrays='{x: ..., y: ...}'"
            )
        rows = arrays[x]
    if rows.dtype.kind == "f" and (why := says_signals(keys, rows.shape)):
        return _signals(path, given, (x, y), why)
    flat = rows.ndim == 2 and rows.dtype.kind == "f" and {"sites", "patients", "test"} & set(keys)
    name = "embeddings_npz" if flat else "npz"
    found = Found(f"arrays {x} and {y}", {"name": name, "path": str(path)} | given, [], rows.ndim > 2)
    if (x, y) != ("x", "y") and "arrays" not in given:
        if "arrays" not in registry.parameters("source", name):
            raise DataError(f"{path} names its arrays {x} and {y}; save them as x and y")
        found.choose("arrays", {"x": x, "y": y}, "by their names")
    return found


def _signals(path: Path, given: Settings, names: tuple[str, str], why: str) -> Found:
    """Windows of signals [n, channels, length]."""
    found = Found(f"signals, arrays {names[0]} and {names[1]}", {"name": "signals_npz", "path": str(path)} | given)
    if names != ("x", "y") and "arrays" not in given:
        found.choose("arrays", {"x": names[0], "y": names[1]}, "by their names")
    if why.startswith("pictures"):
        found.unsure.append(f"name=signals_npz: rows are taken for [channels, length], since {why}")
    return found


def _pictures(path: Path, given: Settings) -> Found | None:
    """Pictures in class folders, possibly below folders that hold nothing else."""
    if path.suffix.lower() == ".zip" and not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a readable zip file; copy it again")
    inside = str(given.get("inside", ""))
    for _ in range(5):
        files, folders = open_files(path, inside).walk()
        top = {name for name in folders if "/" not in name}
        pictures = [name for name in files if PurePosixPath(name).suffix.lower() in IMAGES]
        if not pictures:
            return None
        if len(top) != 1 or any("/" not in name for name in pictures) or "inside" in given:
            break
        deeper = open_files(path, f"{inside}/{min(top)}".strip("/")).walk()[1]
        if not deeper:
            break
        inside = f"{inside}/{min(top)}".strip("/")
    if not top or any("/" not in name for name in pictures):
        return None
    source = {"name": "image_folder", "path": str(path), "inside": inside} | given
    made = registry.build(
        "source", "image_folder", {"on_bad": "refuse"}, **{k: v for k, v in source.items() if k != "name"}
    )
    sets = made._set_folders(top)
    what = (
        f"one folder of pictures per class, in {', '.join(sorted(sets))}"
        if sets
        else "one folder of pictures per class"
    )
    return Found(what, source, [], True)


def _listed(path: Path, given: Settings) -> Found | None:
    """Pictures and one text table that lists them."""
    tables = [file for file in sorted(path.iterdir()) if file.suffix.lower() in (".csv", ".tsv", ".txt")]
    files = open_files(path).walk()[0]
    if not any(PurePosixPath(name).suffix.lower() in IMAGES for name in files):
        return None
    lists = []
    for table in tables:
        try:
            found = find_table(table, given)
        except (DataError, ConfigError):
            continue
        if found.source["name"] == "image_csv":
            lists.append(found)
    if len(lists) > 1:
        names = ", ".join(Path(one.source["path"]).name for one in lists)
        raise ConfigError(f"{path} has several lists of its pictures ({names}): import one of them")
    return lists[0] if lists else None


def _dicom(path: Path, given: Settings) -> Found | None:
    files = open_files(path).walk()[0]
    if not any(PurePosixPath(name).suffix.lower() in DICOM for name in files):
        return None
    lists = [given["labels"]] if given.get("labels") else sorted(path.glob("*.csv"))
    if len(lists) != 1:
        raise ConfigError(f"{path} holds DICOM files and {len(lists)} CSV files of labels: name one with labels=FILE")
    return find_dicom_list(path, Path(lists[0]), given)


def _tables(path: Path, given: Settings) -> Found | None:
    files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in TABLES and file.is_file()]
    if not files:
        return None
    if len(files) == 1:
        return find_table(files[0], given)
    if {file.stem.lower() for file in files} & {"train", "training", "test", "testing"}:
        raise ConfigError(
            f"{path} has its sets in files of their own ({', '.join(file.name for file in files[:4])}): join them, "
            "with a column split of train and test, and import that file"
        )
    return find_tables_of_sites(files, given)
