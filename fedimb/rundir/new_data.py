"""From a file or folder of new rows to the settings of the source that reads it, as a run's own data were read."""

from pathlib import Path

from fedimb import registry
from fedimb.data.inputs import Inputs
from fedimb.data.sources.image_folder import IMAGES
from fedimb.data.sources.table_formats import TABLES
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.plain import Settings

TABLE, DICOM = "tabular_csv", "dicom"
FOLDERS = ("image_folder", DICOM, "huggingface")
BY_SUFFIX: dict[str, tuple[str, ...]] = {
    ".npz": ("npz", "embeddings_npz", "signals_npz"),
    ".csv": ("image_csv", TABLE, DICOM, "recordings"),
    **dict.fromkeys((name for name in TABLES if name != ".csv"), (TABLE,)),
    ".zip": ("image_folder", DICOM),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), (DICOM,)),
    **dict.fromkeys(IMAGES, ("image_folder",)),
}
"""Suffix of a file -> sources that read such files; the first is taken if the run was trained with none of them."""

PATHS = ("path", "file", "folder", "root", "csv", "paths", "files")  # how sources name what they read
_SHARED = ("size", "mode", "clahe")  # settings of pictures that mean the same in every source


def source_for(path: Path, trained: Settings, inputs: Inputs) -> Settings:
    """Settings of the source that reads ``path``: those of the training data as far as they apply.

    Args:
        trained: the source of the training data, ``{name: ..., ...}``; ``{}`` if it is not known.
        inputs: of the run.

    Raises:
        DataError: no such file, or rows of another kind than the run's. ConfigError: no source reads such files.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; give a file, a folder, or data=... settings")
    suffix = path.suffix.lower()
    able = FOLDERS if path.is_dir() else (DICOM,) if suffix == "" else BY_SUFFIX.get(suffix)
    if able is None:
        known = nearest(suffix, BY_SUFFIX)
        raise ConfigError(f"{path}: no source is known for '{suffix}' files; give --source name=... key=....{known}")
    own = str(trained.get("name", ""))
    name = own if own in able else TABLE if TABLE in able and len(inputs.shape) == 1 else able[0]
    given = str(path.absolute())  # a relative one would count from FEDIMB_DATA_DIR
    if DICOM in (own, name):
        return _dicom(path, given, trained, name)
    if (inputs.columns is not None or inputs.agreed is not None) and name not in (TABLE, own):
        raise DataError(f"{path}: the run was trained on a table with named columns: give a .csv or .parquet file")
    able_to = registry.parameters("source", name)
    kept = dict(trained) if name == own else {"name": name}
    kept |= {key: trained[key] for key in _SHARED if key in trained and key in able_to}
    if trained.get("clahe") is not None and "clahe" not in able_to:
        raise ConfigError(
            f"{path}: the run's pictures were equalised as they were read (clahe), and source '{name}' cannot do that; "
            "give picture files, or pictures equalised alike by --source name=... key=..."
        )
    if name == TABLE and name != own:
        kept = {"name": name, "target": trained.get("label") or "label"}
        if own == "sql":  # its settings mean the same of a file, but for where the rows are
            kept |= {key: value for key, value in trained.items() if key in able_to and key != "name"}
    if name == "image_folder" and own not in FOLDERS and "mode" not in kept:
        kept["mode"] = "L" if inputs.shape[0] == 1 else "RGB"
    argument = next((key for key in able_to if key in PATHS), None)
    if argument is None:
        raise ConfigError(f"{path}: source '{name}' takes no path; give --source name=... key=...")
    return kept | {argument: [given] if isinstance(kept.get(argument), list) else given}


def place_of(source: Settings) -> str:
    """The file or folder that a source reads, for messages; else the source's name."""
    named = source.get("labels") or next((source[key] for key in PATHS if source.get(key)), source.get("name"))
    if isinstance(named, dict):
        named = list(named.values())
    return ", ".join(map(str, named)) if isinstance(named, list) else str(named)


def _dicom(path: Path, given: str, trained: Settings, name: str) -> Settings:
    if trained.get("name") != DICOM:
        raise DataError(
            f"{path}: the run was trained on '{trained.get('name', 'unknown')}', not on DICOM files: export the image "
            "as the training images were, or give --source name=dicom path=... labels=''"
        )
    if name != DICOM:
        raise DataError(f"{path}: the run was trained on DICOM files: give a DICOM file, or a folder or CSV of them")
    if path.suffix.lower() == ".csv":
        return trained | {"labels": given, "path": str(path.absolute().parent)}
    return trained | {"path": given, "labels": ""}
