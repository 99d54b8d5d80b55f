"""Images in one folder per class, in a directory or a zip that is read without unpacking."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Literal

from fedimb.data.arrays import SourceData
from fedimb.data.identifiers import Names, identifier
from fedimb.data.new_rows import Expected, RowBatch
from fedimb.data.paths import find_data
from fedimb.data.problems import Problems
from fedimb.data.sources import image_files as listing
from fedimb.data.sources.clahe import clahe_of, equalised
from fedimb.data.sources.image_rows import ImageRow, assemble, check_classes
from fedimb.data.sources.new_pictures import OneFile, picture_batches
from fedimb.data.sources.pictures import Pixels, check_format, decode
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.registry import register

_TRAIN, _TEST, _VALIDATION = {"train", "training"}, {"test", "testing"}, {"val", "valid", "validation"}
IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}


@register("source", "image_folder")
@dataclass(frozen=True)
class ImageFolder:
    """A folder (or .zip) with one folder of images per class.

    x [n, 3 or 1, h, w] uint8, scale 1/255; rows sorted by path, classes by folder name.

    Layouts: ``class/**/image`` or ``train/class/**/image`` and ``test/class/**/image`` (then the official test set);
    also Training and Testing, and val, valid or validation beside train (used for training), in upper or lower case.
    Hidden files, and other files next to the class folders, are ignored; inside class folders every file must be an
    image.

    Args:
        path: directory or .zip, looked up in the current folder and in ``$FEDIMB_DATA_DIR``.
        classes: class names in the order of their ids; None: the folders, sorted.
        size: [height, width] to resize every image to (the aspect ratio is not kept); None: all must have the same
            size.
        mode: RGB or L (grey).
        inside: folder below ``path`` to start in, for example if a zip has a single top folder.
        train_folder, test_folder: folder names of the two sets; "train" and "test" stand for all the usual names; null:
            there are no sets, every top folder is a class.
        patient, site: regular expressions searched in the path below ``path`` (such as train/cat/p01_3.png), with a
            group of that name, as in ``(?P<patient>p\\d+)_``.
        on_bad: see `fedimb.data.problems`.
        clahe: {clip: 2.0, tiles: 8} equalises every image's contrast (`fedimb.data.sources.clahe`); null: as they are.

    Raises:
        ConfigError: an argument out of range. `load` and `fingerprint` raise DataError.
    """

    path: str
    classes: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    mode: Literal["RGB", "L"] = "RGB"
    inside: str = ""
    train_folder: str | None = "train"
    test_folder: str | None = "test"
    patient: str | None = None
    site: str | None = None
    on_bad: str = "refuse"
    clahe: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        check_format("image_folder", self.size, self.mode)
        clahe_of("image_folder", self.clahe, self.size)
        check_classes("image_folder", self.classes)
        for name in ("patient", "site"):
            self._pattern(name)

    def fingerprint(self) -> str:
        """From the settings and each file's size and time (folder) or checksum (zip)."""
        settings = [self.classes, self.size, self.mode, self.inside, self.train_folder, self.test_folder]
        facts = {"settings": settings, "units": [self.patient, self.site]}
        if (clahe := clahe_of("image_folder", self.clahe)) is not None:
            facts["clahe"] = [clahe.clip, clahe.tiles]
        sets = self._set_folders({name for name in self._walked[1] if "/" not in name})
        if usual := sorted(set(sets) - {self.train_folder, self.test_folder}):  # else as before these were known
            facts["usual"] = usual
        return listing.fingerprint("image_folder-1", self._files, self._walked[0], facts)

    def load(self) -> SourceData:
        """Decode every image."""
        problems = Problems(self.on_bad)
        rows, folders = self._rows(problems)
        classes = self.classes or tuple(sorted(folders))
        return assemble(self._files.title, rows, classes, self._read, problems)

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`. Pictures in the run's class folders have labels; others, or one file,
        have none. Files that are not pictures by their names are left out and counted."""
        files, folders = self._walked
        pictures = [name for name in files if PurePosixPath(name).suffix.lower() in IMAGES]
        if not pictures:
            raise DataError(f"{self._files.title} holds no pictures ({', '.join(sorted(IMAGES))}): check the path")
        if len(pictures) < len(files):
            other = next(name for name in files if PurePosixPath(name).suffix.lower() not in IMAGES)
            expected.notes.append(f"{len(files) - len(pictures)} files are not pictures and left out, first {other}")
        depth, classes = self._class_depth(pictures, folders, expected.class_names), expected.names

        def labels(name: str) -> tuple[str] | None:
            return None if depth is None else (str(classes.name(name.split("/")[depth])),)

        rows = ((f"{self._files.title}/{name}", name, labels(name)) for name in pictures)
        yield from picture_batches(rows, self._decode, depth is not None, expected, problems)

    def has_class_folders(self, classes: Sequence[str]) -> bool:
        """Whether the pictures are in folders of these classes, which orders them by label.

        Raises:
            DataError: some folders are classes and some are not, or the folder cannot be read.
        """
        files, folders = self._walked
        pictures = [name for name in files if PurePosixPath(name).suffix.lower() in IMAGES]
        return self._class_depth(pictures, folders, classes) is not None

    def _class_depth(self, pictures: list[str], folders: list[str], classes: Sequence[str]) -> int | None:
        """At which level the folders are the run's classes; None if they are not.

        Raises:
            DataError: some folders are classes of the run and some are not.
        """
        depth = 1 if self._set_folders({name for name in folders if "/" not in name}) else 0
        names = Names(classes)
        above = {parts[depth] if len(parts := name.split("/")) > depth + 1 else "" for name in pictures}
        known = {name for name in above if name in names}
        if known and (unknown := above - known):
            name = min(unknown)
            raise DataError(
                f"{self._files.title}: folder '{min(known)}' is a class of the run and "
                + (f"'{name}' is not.{nearest(name, classes)}" if name else "some pictures are outside such folders.")
                + " Give class folders only, or none"
            )
        return depth if known else None

    def _decode(self, name: str) -> Pixels:
        return equalised(decode(self._files.read(name), self.mode, self.size), clahe_of("image_folder", self.clahe))

    @cached_property
    def _files(self) -> listing.Files:
        path = find_data(self.path)
        if path.is_file() and path.suffix.lower() in IMAGES:
            return OneFile(path)
        return listing.open_files(path, self.inside)

    @cached_property
    def _walked(self) -> tuple[list[str], list[str]]:
        return self._files.walk()

    def _rows(self, problems: Problems) -> tuple[list[ImageRow], set[str]]:
        """Rows, and the names of all class folders, including those without images."""
        files, folders = self._walked
        sets = self._sets({name for name in folders if "/" not in name})
        depth = 1 if sets else 0
        classes = None if self.classes is None else Names(self.classes)
        rows = []
        for name in files:
            parts = name.split("/")
            is_image = PurePosixPath(name).suffix.lower() in IMAGES
            in_class = len(parts) >= depth + 2
            place = f"{self._files.title}/{name}"
            if not in_class and not is_image:
                continue
            elif not in_class:
                problems.add(place, "an image outside the class folders; move it into one")
            elif not is_image:
                problems.add(place, "not an image file by its name; move it out of the class folders")
            elif classes is not None and parts[depth] not in classes:
                problems.add(place, f"folder '{parts[depth]}' is not in classes.{nearest(parts[depth], classes.names)}")
            else:
                label = identifier(parts[depth]) if classes is None else str(classes.name(parts[depth]))
                row = ImageRow(place, name, label, test=sets.get(parts[0]))
                if problems.guard(place, partial(self._name_units, row)):
                    rows.append(row)
        return rows, {identifier(parts[depth]) for name in folders if len(parts := name.split("/")) == depth + 1}

    def _sets(self, top: set[str]) -> dict[str, bool | None]:
        """Top folder -> whether it is the test set (None: there is only one set); empty if top folders are classes."""
        sets = self._set_folders(top)
        if sets and (extra := sorted(top - set(sets))):
            raise DataError(
                f"{self._files.title}: folder '{extra[0]}' beside '{min(sets)}': move it away, or give "
                f"train_folder=null test_folder=null when all of them are classes"
            )
        return {name: test if len(set(sets.values())) == 2 else None for name, test in sets.items()}

    def _set_folders(self, top: set[str]) -> dict[str, bool]:
        """Those of the top folders that are sets -> whether it is the test set."""
        train = self._called(top, self.train_folder, "train", _TRAIN)
        test = self._called(top, self.test_folder, "test", _TEST)
        # Only beside training rows: by themselves, valid and invalid are classes.
        validation = self._called(top, "val", "val", _VALIDATION) if train and self.train_folder == "train" else []
        for same in (train, test, validation):
            if len(same) > 1:
                raise DataError(
                    f"{self._files.title}: folders '{same[0]}' and '{same[1]}' are both the same set; join them, or "
                    "give train_folder=... test_folder=..."
                )
        return dict.fromkeys([*train, *validation], False) | dict.fromkeys(test, True)

    def _called(self, top: set[str], name: str | None, usual: str, words: set[str]) -> list[str]:
        return sorted(one for one in top if one == name or (name == usual and one.lower() in words))

    def _name_units(self, row: ImageRow) -> ImageRow:
        for unit in ("patient", "site"):
            if pattern := self._pattern(unit):
                match = pattern.search(row.name)
                if not match or not match.group(unit):
                    raise DataError(f"the expression {pattern.pattern} finds no {unit} in this path")
                setattr(row, unit, match.group(unit))
        return row

    def _pattern(self, unit: str) -> re.Pattern[str] | None:
        text = getattr(self, unit)
        if text is None:
            return None
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise ConfigError(f"source 'image_folder': {unit}={text!r} is not a regular expression: {error}") from None
        if unit not in pattern.groupindex:
            raise ConfigError(f"source 'image_folder': {unit}={text!r} has no group (?P<{unit}>...)")
        return pattern

    def _read(self, row: ImageRow) -> Pixels:
        return self._decode(row.name)
