"""From a list of labelled image files to one `SourceData`: the checks and the loop shared by all image sources."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData, attribute_columns_of
from fedimb.data.findings.rows import name_findings
from fedimb.data.identifiers import identifier, names_nobody, number_of_each
from fedimb.data.labels import as_targets, primary_class
from fedimb.data.problems import Problems
from fedimb.data.sources.files import with_progress
from fedimb.data.sources.pictures import Pixels
from fedimb.data.times import as_times
from fedimb.errors import ConfigError, DataError


@dataclass
class ImageRow:
    """One image.

    Attributes:
        place: where to find it, for messages.
        name: relative to the root of the files.
        label: class name (an identifier, or as ``classes`` spells it); if there are several labels, all in one string.
        labels: class names if rows may have several; empty if each has one.
        site, patient: as spelled in the source, compared as identifiers (`fedimb.data.identifiers`); None if it has
            none. ``patient`` stays in memory: stores hold numbers.
        time: None if the source has none.
        test: whether it is in the official test set; None if the source has none.
        attributes: values of the columns that the run is scored by (`fedimb.data.subgroups`); None: missing.
    """

    place: str
    name: str
    label: str
    site: str | None = None
    patient: str | None = None
    test: bool | None = None
    labels: tuple[str, ...] = ()
    time: datetime | int | None = None
    attributes: tuple[str | None, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes of the image, one or more."""
        return self.labels or (self.label,)

    @property
    def person(self) -> str | None:
        """The patient's identifier; None if the source has none."""
        return None if self.patient is None else identifier(self.patient)


def check_classes(kind: str, classes: tuple[str, ...] | None) -> None:
    """Raise ConfigError unless ``classes`` is None or distinct names."""
    if classes is not None and (not classes or len(set(map(identifier, classes))) != len(classes) or not all(classes)):
        raise ConfigError(f"source '{kind}': classes={list(classes)}: give distinct names, at least one")


def check_separator(kind: str, separator: str | None, delimiter: str) -> None:
    """Raise ConfigError unless ``separator`` is None or can separate the labels within one field."""
    if separator is not None and (separator.strip() == "" or separator == delimiter):
        raise ConfigError(
            f"source '{kind}': label_separator={separator!r}: use another character than blank and delimiter, as '|'"
        )


def assemble(
    title: str,
    rows: list[ImageRow],
    classes: Sequence[str],
    read: Callable[[ImageRow], Pixels],
    problems: Problems,
    attributes: Sequence[str] = (),
) -> SourceData:
    """Decode every row into one preallocated array.

    Args:
        title: of the source, for messages.
        classes: class names in the order of their ids; each must have at least one image.
        read: a row's uint8 [c, h, w]; may set ``row.patient``; raises DataError for a bad image, such as "has 3
            frames".
        problems: gets one line per image that cannot be used.
        attributes: names of ``row.attributes``, which ``read`` may set.

    Raises:
        DataError: no image, a class without one, images of several sizes or too large for the memory, or bad rows.
    """
    rows = _parted(rows, problems)
    # Before decoding, so that errors in the list are reported without minutes of decoding.
    problems.settle(len(rows))
    if not rows:
        raise DataError(f"{title}: no images; check the path")
    _check_classes(title, rows, classes)
    x = np.empty((0, 0, 0, 0), dtype=np.uint8)
    good: list[ImageRow] = []
    for row in with_progress(rows, f"{title}: decoding images"):
        pixels = problems.guard(row.place, partial(_named, read, row))
        if pixels is None:
            continue
        if not good:
            x = _room(title, len(rows), pixels.shape)
        elif pixels.shape != x.shape[1:]:
            first, other = ("{} x {}".format(*shape[-2:]) for shape in (x.shape, pixels.shape))
            raise DataError(
                f"{title}: images of several sizes (height x width): {good[0].place} is {first}, {row.place} is "
                f"{other}; give size=[height, width] to resize all"
            )
        x[len(good)] = pixels
        good.append(row)
    x = x[: len(good)]
    if len(kept := _parted(good, problems)) < len(good):  # patients known only from the files themselves
        x = x[np.isin([row.place for row in good], [row.place for row in kept])]
        good = kept
    skipped = problems.settle(len(good))
    _check_classes(title, good, classes)
    targets = as_targets([row.labels for row in good], classes) if good[0].labels else None
    of_class = {name: c for c, name in enumerate(classes)}
    site_names, sites = _ids([row.site for row in good])
    return SourceData(
        x=x,
        y=primary_class(targets)
        if targets is not None
        else np.array([of_class[row.label] for row in good], dtype=np.int64),
        class_names=tuple(classes),
        scale=1 / 255,
        sites=sites,
        site_names=site_names,
        patients=_ids([row.patient for row in good])[1],
        official_test=None if good[0].test is None else np.array([row.test for row in good], dtype=np.bool_),
        task="multiclass" if targets is None else "multilabel",
        targets=targets,
        skipped=skipped,
        times=None if good[0].time is None else as_times([row.time for row in good if row.time is not None]),
        row_ids=_row_ids(good),
        attributes=attribute_columns_of(attributes, [row.attributes for row in good]),
        findings=tuple(
            name_findings("patients", dict.fromkeys(r.patient for r in good if r.patient is not None), private=True)
        ),
    )


def _row_ids(rows: list[ImageRow]) -> NDArray[np.str_] | None:
    """File names; of several rows from one file, as frames, with their number from 1: ``scan.dcm#1``."""
    several = {name for name, count in Counter(row.name for row in rows).items() if count > 1}
    seen: Counter[str] = Counter()
    ids = []
    for row in rows:
        seen[row.name] += 1
        ids.append(f"{row.name}#{seen[row.name]}" if row.name in several else row.name)
    return np.array(ids, dtype=np.str_) if len(set(ids)) == len(ids) else None


def _named(read: Callable[[ImageRow], Pixels], row: ImageRow) -> Pixels:
    """The image; an error names the file if the row's place does not."""
    try:
        pixels = read(row)
        if row.patient is not None and names_nobody(row.patient):
            raise DataError(f"has the patient '{row.patient}', which names nobody: give each patient an id")
        return pixels
    except DataError as error:
        raise error if row.place.endswith(row.name) else DataError(f"'{row.name}' {error}") from error


def _parted(rows: list[ImageRow], problems: Problems) -> list[ImageRow]:
    """Remove test rows of patients who also have training rows."""
    trained = {row.person: row.place for row in reversed(rows) if row.person is not None and row.test is False}
    kept = []
    for row in rows:
        if row.test and (person := row.person) in trained:
            problems.add(row.place, f"a test image of a patient who also has training rows ({trained[person]})")
        else:
            kept.append(row)
    return kept


def _check_classes(title: str, rows: list[ImageRow], classes: Sequence[str]) -> None:
    present = {name for row in rows for name in row.classes}
    if empty := [name for name in classes if name not in present]:
        raise DataError(f"{title}: class '{empty[0]}' has no images; add some, or leave it out of classes")


def _room(title: str, n: int, shape: tuple[int, ...]) -> Pixels:
    needed = n * int(np.prod(shape))
    # Linux allocates more memory than it has and then kills the process without an error message.
    if hasattr(os, "sysconf") and needed > (here := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        raise DataError(
            f"{title}: {n:,} images of {list(shape)} need {needed / 2**30:,.1f} GiB, this machine has "
            f"{here / 2**30:,.1f}; give a smaller size=[height, width]"
        )
    return np.empty((n, *shape), dtype=np.uint8)


def _ids(names: list[str | None]) -> tuple[tuple[str, ...], NDArray[np.int64] | None]:
    """(sorted names, id of each), or no names and None if the source has none."""
    known = [name for name in names if name is not None]
    if not known:
        return (), None
    numbers, spelled = number_of_each(known)
    return spelled, numbers
