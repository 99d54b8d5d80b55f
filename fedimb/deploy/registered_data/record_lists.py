"""Where to find each row of a source, and which patient it belongs to.

Sources return numbers: the places of rows appear only in their messages, and patients' own ids nowhere, so that no
store contains them. A site that must name "row 17 of va.csv" or leave out patient 4711 lists its files again here. The
readers of `fedimb.data.sources` do the reading; this module knows which of their parts lists the rows.
"""

import contextlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedimb.data.identifiers import identifier
from fedimb.data.paths import find_data
from fedimb.data.problems import Problems
from fedimb.data.sources.image_files import Files, Folder
from fedimb.data.sources.npz_file import NpzFile, per_row

PATHS = ("path", "paths", "files", "folder", "labels", "root", "events")
"""Source settings that name files or folders."""


@dataclass(frozen=True)
class RecordPlace:
    """Where a row comes from, as the files list it.

    Attributes:
        place: where to find it, written as in the source's messages.
        patient: the patient's id as the files spell it; None if they give none.
        site: before the patient's id where files number patients independently; "" where they do not.
    """

    place: str
    patient: str | None = None
    site: str = ""

    @property
    def person(self) -> str | None:
        """Who it is: equal for equal identifiers (`fedimb.data.identifiers`), however they are spelled."""
        return None if self.patient is None else person_of(self.patient, self.site)


def person_of(patient: str, site: str = "") -> str:
    """`RecordPlace.person` of a patient's id."""
    start = f"{site}/" if site else ""
    return start + identifier(patient.removeprefix(start))


def list_records(name: str, source: Any) -> tuple[list[RecordPlace], list[Path]]:
    """(all rows the files list, including bad ones; all files read) of a source. No rows for third-party sources.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    rows, files = _LISTS.get(name, _unknown)(source)
    return list(rows), [file for file in dict.fromkeys(files) if file.exists()]


def _table(source: Any) -> tuple[Iterable[RecordPlace], list[Path]]:
    parts = source.parts()
    rows = []
    for part in parts:
        site, table = part.name, part.open({})
        names, records = table.names, table.records
        at = None if source.patient is None else names.index(source.patient)
        for place, fields in records:
            own = fields[at] if at is not None and at < len(fields) else None
            # The same id in two files means two people, as in the source.
            apart = own is not None and site and len(parts) > 1
            rows.append(RecordPlace(place, f"{site}/{own}" if apart else own, site or "" if apart else ""))
    return rows, [find_data(part.path) for part in parts]


def _images(source: Any, *tables: str) -> tuple[Iterable[RecordPlace], list[Path]]:
    listed, _ = source._rows(Problems("skip"))
    files = source._files
    held = [files.path / row.name for row in listed] if isinstance(files, Folder) else [files.path]
    return [RecordPlace(row.place, row.patient) for row in listed], [*map(find_data, tables), *held]


def _dicom(source: Any) -> tuple[Iterable[RecordPlace], list[Path]]:
    listed, _ = source._rows(Problems("skip"))
    rows, files = _images(source, source.labels)
    if source.by_patient:
        ids = {row.name: _patient_id(source._files, row.name) for row in listed}
        rows = [RecordPlace(row.place, ids[row.name]) for row in source.frame_rows(listed, Problems("skip"))]
    elif source.frames == "all":
        rows = [RecordPlace(row.place, row.patient) for row in source.frame_rows(listed, Problems("skip"))]
    return rows, files


def _patient_id(files: Files, name: str) -> str | None:
    """PatientID of a DICOM file; None if it cannot be read (the source refuses or skips such a row)."""
    from fedimb.data.sources.dicom_grey import load_pydicom, silent_pydicom

    pydicom = load_pydicom()
    with silent_pydicom(), contextlib.suppress(Exception):  # damaged headers raise many kinds
        header = pydicom.dcmread(io.BytesIO(files.read(name)), stop_before_pixels=True, specific_tags=["PatientID"])
        return str(header.get("PatientID") or "").strip() or None
    return None


def _npz(source: Any) -> tuple[Iterable[RecordPlace], list[Path]]:
    rows: list[RecordPlace] = []
    with NpzFile(source.path, source.arrays) as arrays:
        for keys in source._parts(arrays):
            n = len(arrays[keys.x])
            patients = per_row(arrays, keys.patients, n) if keys.patients in arrays.keys else None
            own = [None] * n if patients is None else list(map(_spelled, patients.tolist()))
            rows += [RecordPlace(f"{source.path} {keys.x}[{i}]", one) for i, one in enumerate(own)]
    return rows, [find_data(source.path)]


def _spelled(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _huggingface(source: Any) -> tuple[Iterable[RecordPlace], list[Path]]:
    rows = []
    for split, data in source._splits():
        own = data[source.patient] if source.patient else [None] * len(data)
        rows += [
            RecordPlace(f"{source.path} {split}[{i}]", None if one is None else str(one)) for i, one in enumerate(own)
        ]
    return rows, [file for file in _below(find_data(source.path)) if not file.name.startswith("cache-")]


def _recordings(source: Any) -> tuple[Iterable[RecordPlace], list[Path]]:
    """The files; windows are named by their number."""
    lists = [source.path, *([source.events] if source.events else [])]
    return [], [*map(find_data, lists), *source.files()]


def _unknown(source: object) -> tuple[Iterable[RecordPlace], list[Path]]:
    """A third-party source: files from the settings that name them, rows by number."""
    given: list[object] = [getattr(source, name, None) for name in PATHS]
    flat = [item for value in given for item in (value.values() if isinstance(value, dict) else _several(value))]
    return [], [file for item in flat if isinstance(item, str) for file in _below(find_data(item))]


def _several(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _below(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


_LISTS: dict[str, Callable[[Any], tuple[Iterable[RecordPlace], list[Path]]]] = {
    "tabular_csv": _table,
    "image_csv": lambda source: _images(source, source.path),
    "image_folder": _images,
    "dicom": _dicom,
    "npz": _npz,
    "embeddings_npz": _npz,
    "signals_npz": _npz,
    "recordings": _recordings,
    "huggingface": _huggingface,
}
