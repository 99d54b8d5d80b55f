"""One .npz of images or tables: MedMNIST's layout, or plain ``x`` and ``y``."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.new_rows import Expected, RowBatch
from fedimb.data.problems import Problems
from fedimb.data.sources.cell_map import Cells
from fedimb.data.sources.files import fingerprint
from fedimb.data.sources.new_arrays import IDS, npz_batches
from fedimb.data.sources.npz_file import NpzFile, likely_arrays, says_signals
from fedimb.data.sources.npz_labels import LabelKind, LabelRule, NameList, Value
from fedimb.data.sources.npz_rows import PLAIN, PartKeys, check_attributes, read_rows
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register


@register("source", "npz")
@dataclass(frozen=True)
class Npz:
    """Images or feature vectors with labels from an .npz file, such as MedMNIST.

    x uint8 (scale 1/255) or float32 (scale 1), [n, channels, height, width] or [n, features].

    MedMNIST (Yang et al., Scientific Data 10:41, 2023): ``train_images`` [n, 28, 28] or [n, 28, 28, 3] uint8 and
    ``train_labels`` [n, 1], and optionally ``val_*`` and ``test_*``; ``test_*`` is the official test set.
    Labels [n, C] of 0 and 1, C > 1, mean several labels per row (ChestMNIST); a row of zeros gets a separate class
    (`fedimb.data.labels.complete`). Plain: ``x`` and ``y``. Images may have their channels (1 or 3) last or first.

    Optional arrays of either layout (of the first: ``train_sites``, ``test_sites``, ...): ``sites`` [n] ids or names,
    ``patients`` [n] whole numbers or text, ``class_names`` [C] and ``site_names`` [S] text; of the plain one also
    ``test`` [n] bool. An array whose name is nearly one of these is refused as misspelt.

    Classes are the labels found, and named by them: ids may start at 1 or have gaps. With ``class_names`` or a map a
    class may be without rows here; sites that share one class list need that. An id that looks like a mark for "no
    label" (255 or -1 beside others) is a bad row until ``ignore_label`` or a map says what it is.

    Args:
        path: the file; see `fedimb.data.paths`.
        validation: whether val rows are added to the training rows or dropped.
        class_names: a list in the order of the class ids (or the ids themselves as text), or id -> name; None: those of
            the file, else the ids found. For labels [n, C] the columns' names, optionally followed by "none".
        site_names: the same for sites.
        arrays: what arrays are called in the file, as in ``{x: data, y: label}``; null for one that is not to be read.
        label_map: label -> class name; several labels may have one class. ``{-1: healthy, 1: ill}``
        ignore_label: label, or list of labels, of rows that have no class: they are left out.
        labels: ids, onehot (columns with a single 1 per row: one class) or several (columns of 0 and 1: any number of
            classes); None: several for columns, ids otherwise.
        cell_map: of columns of 0 and 1: what other values mean, as in {nan: unknown, -1: unknown}: 0, 1 or unknown; or
            class -> such a map (`fedimb.data.sources.cell_map`). Anything else is a bad row.
        divide_by: the model gets x divided by this; None: 255 for uint8, 1 for float.
        on_bad: `fedimb.data.problems`.
        attributes: arrays of ``data.subgroups``, one value per row (of MedMNIST's layout ``train_<name>``, ...).
    """

    path: str
    validation: Literal["train", "drop"] = "train"
    class_names: NameList | None = None
    site_names: NameList | None = None
    arrays: dict[str, str | None] | None = None
    label_map: dict[int | str, str] | None = None
    ignore_label: Value | list[Value] | None = None
    labels: LabelKind | None = None
    divide_by: float | None = None
    on_bad: str = "refuse"
    attributes: tuple[str, ...] = ()
    cell_map: Cells | None = None

    def __post_init__(self) -> None:
        self._rule()  # refuses settings that contradict each other
        if self.divide_by is not None and not (math.isfinite(self.divide_by) and self.divide_by > 0):
            raise ConfigError(f"source 'npz': divide_by={self.divide_by}: give a number above 0, or null")

    def _rule(self) -> LabelRule:
        return LabelRule("npz", self.class_names, self.label_map, self.ignore_label, self.labels, self.cell_map)

    def fingerprint(self) -> str:
        """Of the file."""
        return fingerprint("npz-1", [self.path])

    def load(self) -> SourceData:
        """Read the file.

        Raises:
            DataError: not an .npz, arrays missing or of the wrong shape or type, bad rows.
        """
        problems = Problems(self.on_bad)
        with self._open() as arrays:
            parts = self._parts(arrays)
            self._refuse_signals(arrays, parts)
            grouped = [keys.prefix + name for keys in parts for name in self.attributes]
            check_attributes(arrays, grouped)
            arrays.check_unread([*self._wanted(parts), *grouped])
            return read_rows(
                arrays,
                parts,
                self._rule(),
                self.site_names,
                self._prepare,
                problems,
                self.divide_by,
                self.attributes,
            )

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`. ``ids`` [n], numbers or text, name the rows; labels may be absent."""
        with self._open() as arrays:
            self._refuse_signals(arrays, self._parts(arrays, "test_images"))
            parts = [(keys.x, keys.y) for keys in self._parts(arrays, "test_images")]
            yield from npz_batches(
                arrays, parts, lambda x, good, _: self._prepare(x, good), expected, problems, self._rule()
            )

    def _open(self) -> NpzFile:
        return NpzFile(self.path, self.arrays)

    def _prepare(
        self, x: NDArray[np.generic], good: NDArray[np.bool_]
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        return _channels_first(x, f"{self.path} x"), good

    def _refuse_signals(self, arrays: NpzFile, parts: list[PartKeys]) -> None:
        """Refuse windows of signals, which would be read as pictures of one channel."""
        for keys in parts:
            if keys.x in arrays.keys and (why := says_signals(arrays.keys, arrays.shape(keys.x))):
                raise DataError(
                    f"{self.path} {keys.x} is {list(arrays.shape(keys.x))}: signals [n, channels, length]: {why}; "
                    "use source signals_npz (data=signals_npz). Pictures may be [n, 1, height, width] too"
                )

    @staticmethod
    def _wanted(parts: list[PartKeys]) -> list[str]:
        names = [name for keys in parts for name in (keys.x, keys.y, keys.sites, keys.patients, keys.test)]
        also = [f"val_{what}" for what in ("images", "labels", "sites", "patients")] if parts != [PLAIN] else []
        return [name for name in names if isinstance(name, str)] + [*also, "class_names", "site_names", *IDS]

    def _parts(self, arrays: NpzFile, least: str = "train_images") -> list[PartKeys]:
        """The arrays of each part; train_images or ``least`` must be there."""
        if "x" in arrays.keys or "y" in arrays.keys:
            return [PLAIN]
        if not {"train_images", least} & set(arrays.keys):
            held = ", ".join(arrays.keys) or "nothing"
            raise DataError(
                f"{self.path} holds {held}; give train_images and train_labels, or x and y{likely_arrays(arrays.keys)}"
            )
        wanted = ["train", *(["val"] if self.validation == "train" else []), "test"]
        there = [part for part in wanted if f"{part}_images" in arrays.keys or f"{part}_labels" in arrays.keys]
        return [
            PartKeys(
                f"{part}_images", f"{part}_labels", f"{part}_sites", f"{part}_patients", part == "test", f"{part}_"
            )
            for part in there
        ]


def _channels_first(x: NDArray[np.generic], shown: str) -> NDArray[np.generic]:
    if x.ndim == 2:
        return x
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    raise DataError(f"{shown} is {list(x.shape)}; give [n, height, width], with 1 or 3 channels, or [n, features]")
