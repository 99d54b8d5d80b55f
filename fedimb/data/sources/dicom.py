"""DICOM images listed in a CSV: grey as in a viewer, with patients kept together and anonymous."""

import hashlib
import logging
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from fedimb.data.arrays import SourceData
from fedimb.data.new_rows import Expected, RowBatch
from fedimb.data.paths import find_data
from fedimb.data.problems import Problems
from fedimb.data.sources import files as whole
from fedimb.data.sources import image_files as listing
from fedimb.data.sources.dicom_grey import Grey, load_pydicom, read_grey
from fedimb.data.sources.image_rows import ImageRow, assemble, check_classes, check_separator
from fedimb.data.sources.image_table import Columns, new_pictures, read_rows
from fedimb.data.sources.new_pictures import NewPicture, OneFile, picture_batches
from fedimb.data.sources.pictures import Pixels, check_format, load_pillow, resize
from fedimb.data.sources.table_file import Layout
from fedimb.data.times import check_time_format
from fedimb.errors import DataError
from fedimb.registry import register

SUFFIXES = (".dcm", ".dicom", ".ima", "")
log = logging.getLogger("fedimb")


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
        allow_burned_in: accept images with BurnedInAnnotation YES, which may show a name; a warning gives their number.
        on_bad: see `fedimb.data.problems`.

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

    def __post_init__(self) -> None:
        check_format("dicom", self.size)
        check_classes("dicom", self.classes)
        check_separator("dicom", self.label_separator, self.delimiter)
        check_time_format("dicom", self.time_column, self.time_format)

    def fingerprint(self) -> str:
        """Of the CSV's content, the settings, and the size and time (folder) or checksum (zip) of each file."""
        rows, classes = self._rows(Problems("skip"))
        settings = {
            "csv": hashlib.sha256(whole.regular_file(self.labels).read_bytes()).hexdigest(),
            "classes": classes,
            "size": self.size,
            "columns": [self.file_column, self.label_column, self.site_column, self.split_column],
            "rules": [self.by_patient, self.allow_burned_in],
        }
        if self.label_separator is not None:
            settings["label_separator"] = self.label_separator
        if self.time_column is not None:
            settings["time"] = [self.time_column, self.time_format]
        return listing.fingerprint("dicom-1", self._files, [row.name for row in rows], settings)

    def load(self) -> SourceData:
        """Decode every image."""
        load_pydicom()
        if self.size is not None:
            load_pillow()
        problems = Problems(self.on_bad)
        rows, classes = self._rows(problems)
        burned_in: list[str] = []
        data = assemble(self.labels, rows, classes, lambda row: self._read(row, burned_in), problems)
        if burned_in:
            log.warning(
                "source 'dicom': %d images with burned-in annotation are used, first %s", len(burned_in), burned_in[0]
            )
        return data

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
        yield from picture_batches(rows, lambda name: self._pixels(self._grey(name)), labelled, expected, problems)

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
        )

    def _rows(self, problems: Problems) -> tuple[list[ImageRow], tuple[str, ...]]:
        return read_rows(self.labels, self._layout, self._columns, self.classes, problems)

    def _grey(self, name: str) -> Grey:
        image = read_grey(self._files.read(name))
        if image.burned_in and not self.allow_burned_in:
            raise DataError(
                "has burned-in annotation, which may show a name: leave it out, or check it and set "
                "allow_burned_in=true"
            )
        return image

    def _pixels(self, image: Grey) -> Pixels:
        return image.pixels if self.size is None else resize(image.pixels, self.size)

    def _read(self, row: ImageRow, burned_in: list[str]) -> Pixels:
        image = self._grey(row.name)
        if self.by_patient:
            if image.patient is None:
                raise DataError("has no PatientID; if no patient has two images, set by_patient=false")
            row.patient = image.patient
        pixels = self._pixels(image)
        if image.burned_in:
            burned_in.append(row.name)
        return pixels
