"""Embeddings of a frozen encoder in one .npz, optionally with the site and patient of each row."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.new_rows import Expected, RowBatch, check_encoder
from fedimb.data.problems import Problems
from fedimb.data.sources.cell_map import Cells
from fedimb.data.sources.files import fingerprint
from fedimb.data.sources.new_arrays import IDS, npz_batches
from fedimb.data.sources.npz_file import NpzFile, likely_arrays
from fedimb.data.sources.npz_labels import LabelKind, LabelRule, NameList, Value
from fedimb.data.sources.npz_rows import PLAIN, PartKeys, check_attributes, read_rows
from fedimb.errors import DataError
from fedimb.registry import register


@register("source", "embeddings_npz")
@dataclass(frozen=True)
class EmbeddingsNpz:
    """Embeddings and labels from an .npz file.

    x [n, d] float32, used unchanged.

    The file holds ``x`` [n, d] float, ``y`` [n] class ids or names, or [n, C] of 0 and 1 if rows have several labels,
    and optionally ``class_names`` [C] text, ``sites`` [n] ids or names, ``site_names`` [S] text, ``patients`` [n]
    whole numbers or text, ``test`` [n] bool, ``encoder`` text, one or [n]: what made the embeddings (a model, its
    revision, its tokeniser). An array whose name is nearly one of these is refused as misspelt.

    Args:
        path: the file; see `fedimb.data.paths`.
        l2_normalise: divide every row by its length.
        class_names, site_names: replace those of the file: a list in the order of the ids, or id -> name.
        arrays, label_map, ignore_label, labels, cell_map: as of source npz.
        on_bad: `fedimb.data.problems`.
        attributes: arrays of ``data.subgroups``, one value per row.
    """

    path: str
    l2_normalise: bool = False
    class_names: NameList | None = None
    site_names: NameList | None = None
    arrays: dict[str, str | None] | None = None
    label_map: dict[int | str, str] | None = None
    ignore_label: Value | list[Value] | None = None
    labels: LabelKind | None = None
    on_bad: str = "refuse"
    attributes: tuple[str, ...] = ()
    cell_map: Cells | None = None

    def __post_init__(self) -> None:
        self._rule()  # refuses settings that contradict each other

    def _rule(self) -> LabelRule:
        return LabelRule(
            "embeddings_npz", self.class_names, self.label_map, self.ignore_label, self.labels, self.cell_map
        )

    def _parts(self, arrays: NpzFile) -> list[PartKeys]:
        return [PLAIN]

    def fingerprint(self) -> str:
        """Of the file."""
        return fingerprint("embeddings_npz-1", [self.path])

    def load(self) -> SourceData:
        """Read the file.

        Raises:
            DataError: not an .npz, arrays missing or of the wrong shape or type, bad rows.
        """
        problems = Problems(self.on_bad)

        def prepare(x: NDArray[np.generic], good: NDArray[np.bool_]) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
            if x.ndim != 2 or x.dtype != np.float32:
                raise DataError(f"{self.path} x is {x.dtype} {list(x.shape)}; give float32 [n, d]")
            return _unit_rows(x, good, self.path, problems) if self.l2_normalise else (x, good)

        with NpzFile(self.path, self.arrays) as arrays:
            if "x" not in arrays.keys and (likely := likely_arrays(arrays.keys)):
                raise DataError(f"{self.path} has no array 'x'{likely}")
            check_attributes(arrays, self.attributes)
            named = ("class_names", "site_names", "encoder", *IDS, *self.attributes)
            known = ("x", "y", "sites", "patients", "test", *named)
            arrays.check_unread(known)
            parts = self._parts(arrays)
            encoder = _encoder(arrays)
            found = read_rows(
                arrays, parts, self._rule(), self.site_names, prepare, problems, attributes=self.attributes
            )
        return replace(found, encoder=encoder)

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`. ``ids`` [n], numbers or text, name the rows; labels may be absent."""

        def prepare(
            x: NDArray[np.generic], good: NDArray[np.bool_], start: int
        ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
            return _unit_rows(x, good, self.path, problems, start) if self.l2_normalise else (x, good)

        with NpzFile(self.path, self.arrays) as arrays:
            check_encoder(self.path, _encoder(arrays), expected)
            yield from npz_batches(arrays, [("x", "y")], prepare, expected, problems, self._rule())


def _encoder(arrays: NpzFile) -> str | None:
    """What made the embeddings; None if the file does not say.

    Raises:
        DataError: not a text, or rows of several encoders, whose embeddings are points of different spaces.
    """
    if "encoder" not in arrays.keys:
        return None
    found = arrays["encoder"]
    if found.dtype.kind != "U" or found.ndim > 1 or not found.size or not all(map(str.strip, found.ravel().tolist())):
        raise DataError(f"{arrays.path} encoder is {found.dtype} {list(found.shape)}; give a text, or one per row")
    names = sorted(set(found.ravel().tolist()))
    if len(names) > 1:
        row = int(np.flatnonzero(found != found[0])[0])
        raise DataError(
            f"{arrays.path}: row 0 was embedded by '{found[0]}', row {row} by '{found[row]}': embed all rows with one"
        )
    return str(names[0])


def _unit_rows(
    x: NDArray[np.generic], good: NDArray[np.bool_], path: str, problems: Problems, start: int = 0
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    # In float64: the square of a large float32 is infinite.
    length = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    long = length[:, 0] > 0
    for row in np.flatnonzero(good & ~long):
        problems.add(f"{path} x[{start + row}]", "all zeros, so it has no direction to normalise; embed it again")
    with np.errstate(invalid="ignore", divide="ignore"):  # bad rows, left out by the caller
        return (x / length).astype(np.float32), good & long
