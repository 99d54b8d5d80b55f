"""Pictures to predict, decoded in batches; each row's id is the name of its file."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedimb.data.labels import as_targets
from fedimb.data.new_rows import UNKNOWN, Expected, RowBatch, batch_rows
from fedimb.data.problems import Problems
from fedimb.data.sources.image_files import LARGEST
from fedimb.data.sources.pictures import Pixels
from fedimb.errors import ConfigError, DataError

NewPicture = tuple[str, str, tuple[str, ...] | None]
"""(place for messages, file name or "" for a bad row, class names or None if they are not known)."""


def picture_batches(
    pictures: Iterable[NewPicture],
    read: Callable[[str], Pixels],
    labelled: bool,
    expected: Expected,
    problems: Problems,
) -> Iterator[RowBatch]:
    """Batches of pictures.

    Args:
        read: decodes one file; raises DataError if it cannot be used.
        labelled: whether any picture has a label.
    """
    if expected.id_column or expected.ignored:
        raise ConfigError("pictures have no columns to name: leave out --id and --drop (ids are the files' names)")
    shape, at_once = expected.inputs.shape, batch_rows(expected.inputs.shape)

    def decoded(name: str) -> Pixels:
        pixels = read(name)
        if pixels.shape != shape:
            raise DataError(f"is {list(pixels.shape)}, the run's pictures are {list(shape)} (channels, height, width)")
        return pixels

    rows: list[int] = []
    names: list[str] = []
    pixels: list[Pixels] = []
    labels: list[tuple[str, ...] | None] = []

    def finished() -> RowBatch:
        known = _labels(labels, expected) if labelled else None
        batch = RowBatch(np.array(rows, np.int64), np.stack(pixels), tuple(names), known)
        for held in (rows, names, pixels, labels):
            held.clear()
        return batch

    for number, (place, name, label) in enumerate(pictures):
        one = problems.guard(place, partial(decoded, name)) if name else None
        if one is None:
            continue
        rows.append(number)
        names.append(name)
        pixels.append(one)
        labels.append(label)
        if len(rows) == at_once:
            yield finished()
    if rows:
        yield finished()


def _labels(labels: list[tuple[str, ...] | None], expected: Expected) -> NDArray[np.integer]:
    if expected.several:
        return expected.targets(as_targets([label or () for label in labels], expected.class_names))
    return np.array([UNKNOWN if not label else expected.class_id(label[0]) for label in labels], np.int64)


class OneFile:
    """A single file, as `fedimb.data.sources.image_files.Files`."""

    def __init__(self, path: Path) -> None:
        self.path, self.title = path, path.name

    def walk(self) -> tuple[list[str], list[str]]:
        """The file, and no folders."""
        return [self.path.name], []

    def read(self, name: str) -> bytes:
        """The whole file. DataError if it is empty or cannot be read."""
        try:
            if not 0 < self.path.stat().st_size <= LARGEST:
                raise DataError(f"has {self.path.stat().st_size:,} bytes, which is no image")
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})") from error

    def stamp(self, name: str) -> str:
        """Size and time."""
        facts = self.path.stat()
        return f"{facts.st_size}-{facts.st_mtime_ns}"
