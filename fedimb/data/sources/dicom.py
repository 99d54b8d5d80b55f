"""DICOM images listed in a CSV: grey as in a viewer, with patients kept together and anonymous."""

import hashlib
import logging
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Any

from fedimb.data.arrays import SourceData
from fedimb.data.new_rows import Expected, RowBatch
from fedimb.data.paths import find_data
from fedimb.data.problems import Problems
from fedimb.data.sources import files as whole
from fedimb.data.sources import image_files as listing
from fedimb.data.sources.clahe import clahe_of, equalised
from fedimb.data.sources.dicom_grey import (
    Grey,
    check_keyword,
    count_frames,
    frame_grey,
    header_values,
    load_pydicom,
    read_grey,
    read_header,
)
from fedimb.data.sources.image_rows import ImageRow, assemble, check_classes, check_separator
from fedimb.data.sources.image_table import Columns, new_pictures, read_rows
from fedimb.data.sources.new_pictures import NewPicture, OneFile, picture_batches
from fedimb.data.sources.pictures import Pixels, check_format, load_pillow, resize
from fedimb.data.sources.table_file import Layout, read_table
from fedimb.data.times import check_time_format
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.registry import register

SUFFIXES = (".dcm", ".dicom", ".ima", "")
FRAMES = ("first", "middle", "all")
log = logging.getLogger("fedimb")


@dataclass
class FrameRow(ImageRow):
    """One frame of a file with several. ``frame`` counts from 0, ``place`` from 1."""

    frame: int = 0


@register("source", "dicom")
@dataclass(frozen=True)
class Dicom:
    """Images in DICOM files, listed in a CSV with their labels.

    x [n, 1, h, w] uint8, scale 1/255, see `fedimb.data.sources.dicom_grey`; rows in the order of the CSV.

    Patients are PatientIDs, replaced by numbers in this process: the id itself is neither stored nor printed.
    Needs ``pip install 'fedimb[dicom]'``.

    Args:
        path: folder or .zip of the files, looked up in the current folder and in ``$FEDIMB_DATA_DIR``.
        labels: CSV with the columns file (relative to ``path``), label and optionally site and split; looked up in the
            same way.
        classes, size, label_separator, delimiter, encoding: as for `fedimb.data.sources.image_csv`.
        file_column, label_column, site_column, split_column, time_column, time_format: as for
            `fedimb.data.sources.image_csv`.
        by_patient: rows of one PatientID are never split up, and a file without one is a bad row. False: every image is
            independent, which is right only if no patient has two.
        frames: of a file with several frames: ``first``, ``middle`` (of an even number the lower one) or ``all``, each
            a row with the file's label; None: a bad row. With ``all`` the frames of one file are never split up: they
            are one patient's, or with ``by_patient=false`` count as one patient's.
        allow_burned_in: accept images with BurnedInAnnotation YES, which may show a name; a warning gives their number.
        on_bad: see `fedimb.data.problems`.
        clahe: {clip: 2.0, tiles: 8} equalises every image's contrast (`fedimb.data.sources.clahe`); null: as they are.
        attributes: columns of ``data.subgroups``: of the list, or else header entries by keyword, as PatientSex,
            PatientAge (in years) or Manufacturer.

    Raises:
        ConfigError: an argument out of range, pydicom not installed. `load` and `fingerprint` raise DataError.
    """

    path: str
    labels: str
    classes: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    file_column: str = "file"
    label_column: str = "label"
    site_column: str | None = "site"
    split_column: str | None = "split"
    by_patient: bool = True
    allow_burned_in: bool = False
    label_separator: str | None = None
    delimiter: str = ","
    encoding: str = "utf-8"
    time_column: str | None = None
    time_format: str | None = None
    on_bad: str = "refuse"
    frames: str | None = None
    clahe: Mapping[str, float] | None = None
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames not in FRAMES:
            raise ConfigError(f"source 'dicom': no frames '{self.frames}'.{nearest(self.frames, FRAMES)}")
        check_format("dicom", self.size)
        clahe_of("dicom", self.clahe, self.size)
        check_classes("dicom", self.classes)
        check_separator("dicom", self.label_separator, self.delimiter)
        check_time_format("dicom", self.time_column, self.time_format)

    def fingerprint(self) -> str:
        """Of the CSV's content, the settings, and the size and time (folder) or checksum (zip) of each file."""
        rows, classes = self._rows(Problems("skip"))
        settings: dict[str, object] = {
            "csv": hashlib.sha256(whole.regular_file(self.labels).read_bytes()).hexdigest(),
            "classes": classes,
            "size": self.size,
            "columns": [self.file_column, self.label_column, self.site_column, self.split_column],
            "rules": [self.by_patient, self.allow_burned_in],
        }
        if self.label_separator is not None:
            settings["label_separator"] = self.label_separator
        if self.frames is not None:
            settings["frames"] = self.frames
        if (clahe := clahe_of("dicom", self.clahe)) is not None:
            settings["clahe"] = [clahe.clip, clahe.tiles]
        if self.time_column is not None:
            settings["time"] = [self.time_column, self.time_format]
        return listing.fingerprint("dicom-2", self._files, [row.name for row in rows], settings)

    def load(self) -> SourceData:
        """Decode every image."""
        load_pydicom()
        if self.size is not None:
            load_pillow()
        problems = Problems(self.on_bad)
        rows, classes = self._rows(problems)
        rows = self.frame_rows(rows, problems)
        burned_in: dict[str, None] = {}
        opened: dict[str, Any] = {}
        data = assemble(
            self.labels, rows, classes, lambda row: self._read(row, burned_in, opened), problems, self.attributes
        )
        if burned_in:
            log.warning(
                "source 'dicom': %d images with burned-in annotation are used, first %s",
                len(burned_in),
                next(iter(burned_in)),
            )
        return data

    def frame_rows(self, rows: list[ImageRow], problems: Problems) -> list[ImageRow]:
        """With ``frames=all`` a row for each frame, else the rows as they are. Reads the headers of all files."""
        if self.frames != "all":
            return rows
        found: list[ImageRow] = []
        for row in rows:
            count = problems.guard(row.place, partial(self._count, row.name))
            patient = row.patient if self.by_patient else row.name
            for frame in range(count or 0):
                place = row.place if count == 1 else f"{row.place} frame {frame + 1}"
                found.append(
                    FrameRow(
                        place,
                        row.name,
                        row.label,
                        row.site,
                        patient,
                        row.test,
                        row.labels,
                        row.time,
                        row.attributes,
                        frame,
                    )
                )
        return found

    def _count(self, name: str) -> int:
        try:
            data = self._files.read(name)
            count = count_frames(read_header(data, pixels=False))
        except DataError as error:
            raise DataError(f"'{name}' {error}") from error
        if not 0 < count <= 8 * len(data):  # at least a bit each
            raise DataError(f"'{name}' claims {count} frames in {len(data):,} bytes")
        return count

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`. ``labels`` is the CSV; without one ("") every file of the folder, or the
        one file ``path``, is a row. Ids are file names, never PatientIDs. Patients may be unknown."""
        load_pydicom()
        rows: Iterable[NewPicture]
        if self.labels:
            labelled, rows = new_pictures(self.labels, self._layout, self._columns, expected, problems)
        else:
            files = [name for name in self._files.walk()[0] if PurePosixPath(name).suffix.lower() in SUFFIXES]
            if not files:
                raise DataError(f"{self.path} holds no DICOM files (.dcm, .dicom, .ima, or no suffix): check the path")
            labelled, rows = False, ((f"{self._files.title}/{name}", name, None) for name in files)
        if self.frames == "all":
            rows = self._new_frames(rows, problems)
        yield from picture_batches(rows, lambda name: self._pixels(self._new_grey(name)), labelled, expected, problems)

    def _new_frames(self, rows: Iterable[NewPicture], problems: Problems) -> Iterator[NewPicture]:
        """Each frame as a picture, named ``file#3`` by its number from 1."""
        for place, name, labels in rows:
            count = problems.guard(place, partial(self._count, name)) if name else None
            if count is None:
                yield place, "", None
            for frame in range(count or 0):
                yield f"{place} frame {frame + 1}", f"{name}#{frame + 1}", labels

    def _new_grey(self, name: str) -> Grey:
        if self.frames != "all":
            return self._grey(name)
        name, _, number = name.rpartition("#")
        return self._checked(frame_grey(read_header(self._files.read(name)), int(number) - 1))

    @cached_property
    def _files(self) -> listing.Files:
        path = find_data(self.path)
        return OneFile(path) if path.is_file() and not zipfile.is_zipfile(path) else listing.open_files(path)

    @property
    def _layout(self) -> Layout:
        return Layout(delimiter=self.delimiter, encoding=self.encoding)

    @property
    def _columns(self) -> Columns:
        return Columns(
            self.file_column,
            self.label_column,
            self.site_column,
            None,
            self.split_column,
            file_setting="file_column",
            label_separator=self.label_separator,
            time=self.time_column,
            time_format=self.time_format,
            attributes=tuple(name for name in self.attributes if name not in self._entries),
        )

    @cached_property
    def _entries(self) -> tuple[str, ...]:
        """The attributes that are header entries: no column of the list has their name."""
        if not self.attributes:
            return ()
        names, _ = read_table(self.labels, self._layout)
        found = tuple(name for name in self.attributes if name not in names)
        for name in found:
            check_keyword(name, f"{self.labels}: data.subgroups", names)
        return found

    def _rows(self, problems: Problems) -> tuple[list[ImageRow], tuple[str, ...]]:
        return read_rows(self.labels, self._layout, self._columns, self.classes, problems)

    def _grey(self, name: str) -> Grey:
        data = self._files.read(name)
        return self._checked(read_grey(data) if self.frames is None else read_grey(data, self.frames))

    def _checked(self, image: Grey) -> Grey:
        if image.burned_in and not self.allow_burned_in:
            raise DataError(
                "has burned-in annotation, which may show a name: leave it out, or check it and set "
                "allow_burned_in=true"
            )
        return image

    def _pixels(self, image: Grey) -> Pixels:
        pixels = image.pixels if self.size is None else resize(image.pixels, self.size)
        return equalised(pixels, clahe_of("dicom", self.clahe))

    def _read(self, row: ImageRow, burned_in: dict[str, None], opened: dict[str, Any]) -> Pixels:
        if isinstance(row, FrameRow):
            if row.name not in opened:  # the frames of a file follow each other: it is read once
                opened.clear()
                opened[row.name] = read_header(self._files.read(row.name))
            image = self._checked(frame_grey(opened[row.name], row.frame))
        else:
            image = self._grey(row.name)
        if self.by_patient:
            if image.patient is None:
                raise DataError("has no PatientID; if no patient has two images, set by_patient=false")
            row.patient = image.patient
        pixels = self._pixels(image)
        if image.burned_in:
            burned_in[row.name] = None
        if self._entries:
            listed = iter(row.attributes)
            said = header_values(read_header(self._files.read(row.name), pixels=False), self._entries)
            row.attributes = tuple(said[name] if name in said else next(listed) for name in self.attributes)
        return pixels
