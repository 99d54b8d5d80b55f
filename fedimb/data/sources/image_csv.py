"""Images listed in a CSV: path, label and optionally site, patient and split."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

from fedimb.data.arrays import SourceData
from fedimb.data.new_rows import Expected, RowBatch
from fedimb.data.paths import find_data
from fedimb.data.problems import Problems
from fedimb.data.sources import files as whole
from fedimb.data.sources import image_files as listing
from fedimb.data.sources.clahe import clahe_of, equalised
from fedimb.data.sources.file_names import FileNames
from fedimb.data.sources.image_rows import ImageRow, assemble, check_classes, check_separator
from fedimb.data.sources.image_table import Columns, new_pictures, read_rows
from fedimb.data.sources.new_pictures import picture_batches
from fedimb.data.sources.pictures import Pixels, check_format, decode
from fedimb.data.sources.table_file import Layout
from fedimb.data.times import check_time_format
from fedimb.errors import ConfigError
from fedimb.registry import register


@register("source", "image_csv")
@dataclass(frozen=True)
class ImageCsv:
    """Image files listed in a CSV with their labels.

    x [n, 3 or 1, h, w] uint8, scale 1/255; rows in the order of the CSV.

    Args:
        path: the CSV, looked up in the current folder and in ``$FEDIMB_DATA_DIR``; its first row names the columns.
        root: folder or .zip to which the image paths are relative; null: the CSV's folder.
        classes: class names in the order of their ids; null: the labels in the CSV, numbers sorted by value. A label is
            a class's name or, if no class name is a number, its id.
        size: [height, width] to resize every image to (the aspect ratio is not kept); null: all must have the same
            size.
        mode: RGB or L (grey).
        path_column, label_column: required columns.
        path_template: the file's name from the cell of ``path_column``, as ``{:03d}.jpg`` or ``{site}/{}.png`` with
            another column; null: the cell is the name.
        suffix: appended to names that do not have it, as ``.jpg`` for HAM10000's ids.
        folders: folders below ``root`` in which each file is looked for; null: names are relative to ``root``.
        site_column, patient_column, split_column: used if the CSV has them; null: not used. A split is train,
            validation (also used for training) or test (the official test set).
        label_separator: separator between the labels of an image that may have several, such as ``|`` in
            ``mass|nodule``; null: one label per image.
        time_column: column of the images' dates or times, for data.test=temporal; null: none.
        time_format: of that column: null: ISO dates and timestamps (2024-03-04, 2024-03-04T10:30); a format such as
            %d/%m/%Y; or ``number`` for whole numbers.
        delimiter, encoding: of the CSV, see `fedimb.data.sources.table_file.Layout`.
        on_bad: see `fedimb.data.problems`.
        clahe: {clip: 2.0, tiles: 8} equalises every image's contrast (`fedimb.data.sources.clahe`); null: as they are.
        attributes: columns of ``data.subgroups``.

    Raises:
        ConfigError: an argument out of range. `load` and `fingerprint` raise DataError.
    """

    path: str
    root: str | None = None
    classes: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    mode: Literal["RGB", "L"] = "RGB"
    path_column: str = "path"
    label_column: str = "label"
    path_template: str | None = None
    suffix: str = ""
    folders: tuple[str, ...] | None = None
    site_column: str | None = "site"
    patient_column: str | None = "patient"
    split_column: str | None = "split"
    label_separator: str | None = None
    delimiter: str = ","
    encoding: str = "utf-8"
    time_column: str | None = None
    time_format: str | None = None
    on_bad: str = "refuse"
    clahe: Mapping[str, float] | None = None
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_format("image_csv", self.size, self.mode)
        clahe_of("image_csv", self.clahe, self.size)
        check_classes("image_csv", self.classes)
        check_separator("image_csv", self.label_separator, self.delimiter)
        check_time_format("image_csv", self.time_column, self.time_format)
        try:
            _ = self._names
        except ConfigError as error:
            raise ConfigError(f"source 'image_csv': {error}") from None

    def fingerprint(self) -> str:
        """Of the CSV's content, the settings, and the size and time (folder) or checksum (zip) of each image."""
        rows, classes = self._rows(Problems("skip"))
        csv = hashlib.sha256(whole.regular_file(self.path).read_bytes()).hexdigest()
        settings: dict[str, object] = {"csv": csv, "classes": classes, "size": self.size, "mode": self.mode}
        columns = [self.path_column, self.label_column, self.site_column, self.patient_column, self.split_column]
        if self.label_separator is not None:
            columns.append(self.label_separator)
        if self.time_column is not None:
            columns += [self.time_column, self.time_format]
        if (clahe := clahe_of("image_csv", self.clahe)) is not None:
            settings["clahe"] = [clahe.clip, clahe.tiles]
        names = [row.name for row in rows]
        return listing.fingerprint("image_csv-1", self._files, names, settings | {"columns": columns})

    def load(self) -> SourceData:
        """Decode every image."""
        problems = Problems(self.on_bad)
        rows, classes = self._rows(problems)
        return assemble(self.path, rows, classes, self._read, problems, self.attributes)

    @cached_property
    def _files(self) -> listing.Files:
        return listing.open_files(find_data(self.root) if self.root else whole.regular_file(self.path).parent)

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`. The column of labels may be absent, and any other but the paths'."""
        labelled, rows = new_pictures(self.path, self._layout, self._columns, expected, problems)
        yield from picture_batches(rows, self._decode, labelled, expected, problems)

    @property
    def _layout(self) -> Layout:
        return Layout(delimiter=self.delimiter, encoding=self.encoding)

    @property
    def _names(self) -> FileNames:
        return FileNames(self.path_template, self.suffix, self.folders or ())

    @property
    def _columns(self) -> Columns:
        return Columns(
            self.path_column,
            self.label_column,
            self.site_column,
            self.patient_column,
            self.split_column,
            label_separator=self.label_separator,
            time=self.time_column,
            time_format=self.time_format,
            attributes=self.attributes,
            find_file=None if self._names == FileNames() else partial(self._names.find, files=self._files),
        )

    def _rows(self, problems: Problems) -> tuple[list[ImageRow], tuple[str, ...]]:
        return read_rows(self.path, self._layout, self._columns, self.classes, problems)

    def _read(self, row: ImageRow) -> Pixels:
        return self._decode(row.name)

    def _decode(self, name: str) -> Pixels:
        return equalised(decode(self._files.read(name), self.mode, self.size), clahe_of("image_csv", self.clahe))
