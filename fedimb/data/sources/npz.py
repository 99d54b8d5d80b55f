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
from fedimb.data.sources.files import fingerprint
from fedimb.data.sources.new_arrays import npz_batches
from fedimb.data.sources.npz_file import NpzFile, class_ids, read_labels, read_values
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

    Args:
        path: the file; see `fedimb.data.paths`.
        validation: whether val rows are added to the training rows or dropped.
        class_names: in order of the class ids; None: the ids up to the largest of all parts. For labels [n, C] the
            columns' names, optionally followed by "none".
        divide_by: the model gets x divided by this; None: 255 for uint8, 1 for float.
        on_bad: `fedimb.data.problems`.
    """

    path: str
    validation: Literal["train", "drop"] = "train"
    class_names: list[str] | None = None
    divide_by: float | None = None
    on_bad: str = "refuse"

    def __post_init__(self) -> None:
        if self.divide_by is not None and not (math.isfinite(self.divide_by) and self.divide_by > 0):
            raise ConfigError(f"source 'npz': divide_by={self.divide_by}: give a number above 0, or null")

    def fingerprint(self) -> str:
        """Of the file."""
        return fingerprint("npz-1", [self.path])

    def load(self) -> SourceData:
        """Read the file.

        Raises:
            DataError: not an .npz, arrays missing or of the wrong shape or type, bad rows.
        """
        problems = Problems(self.on_bad)
        xs: list[NDArray[np.generic]] = []
        ys: list[NDArray[np.generic]] = []
        tests: list[NDArray[np.bool_]] = []
        with NpzFile(self.path) as arrays:
            for x_key, y_key, test in self._parts(arrays):
                x, good = read_values(arrays, x_key, problems)
                y, good = read_labels(arrays, y_key, good, self.class_names, problems)
                x = _channels_first(x, f"{self.path} {x_key}")
                if ys and y.shape[1:] != ys[0].shape[1:]:
                    first, other = (
                        "one class id" if one.ndim == 1 else f"{one.shape[1]} columns" for one in (ys[0], y)
                    )
                    raise DataError(
                        f"{self.path} {y_key} has {other} per row but earlier parts have {first}; use one layout"
                    )
                if xs and (
                    x.shape[1:] != xs[0].shape[1:] or x.dtype != xs[0].dtype or y.dtype.kind != ys[0].dtype.kind
                ):
                    raise DataError(f"{self.path}: {x_key} and {y_key} differ from the other parts in shape or type")
                xs.append(x if good.all() else x[good])
                ys.append(y[good])
                tests.append(np.full(int(good.sum()), test))
        found, is_test = np.concatenate(ys), np.concatenate(tests)
        skipped = problems.settle(len(found))
        y, targets, names = class_ids(found, self.class_names)
        x = xs[0] if len(xs) == 1 else np.concatenate(xs)
        return SourceData(
            x=x,
            y=y,
            class_names=names,
            scale=1 / (self.divide_by or (255 if x.dtype == np.uint8 else 1)),
            official_test=is_test if is_test.any() else None,
            task="multiclass" if targets is None else "multilabel",
            targets=targets,
            skipped=skipped,
        )

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`. ``ids`` [n], numbers or text, name the rows; labels may be absent."""
        with NpzFile(self.path) as arrays:
            parts = [(x_key, y_key) for x_key, y_key, _ in self._parts(arrays, "test_images")]
            yield from npz_batches(
                arrays, parts, lambda x, good, _: (_channels_first(x, f"{self.path} x"), good), expected, problems
            )

    def _parts(self, arrays: NpzFile, least: str = "train_images") -> list[tuple[str, str, bool]]:
        """(values, labels, whether it is the test set) of each part; train_images or ``least`` must be there."""
        if "x" in arrays.keys or "y" in arrays.keys:
            return [("x", "y", False)]
        if not {"train_images", least} & set(arrays.keys):
            held = ", ".join(arrays.keys) or "nothing"
            raise DataError(f"{self.path} holds {held}; give train_images and train_labels, or x and y")
        wanted = ["train", *(["val"] if self.validation == "train" else []), "test"]
        there = [part for part in wanted if f"{part}_images" in arrays.keys or f"{part}_labels" in arrays.keys]
        return [(f"{part}_images", f"{part}_labels", part == "test") for part in there]


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
