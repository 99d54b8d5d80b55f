"""Embeddings of a frozen encoder in one .npz, optionally with the site and patient of each row."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.new_rows import Expected, RowBatch
from fedimb.data.problems import Problems
from fedimb.data.sources.files import fingerprint
from fedimb.data.sources.new_arrays import npz_batches
from fedimb.data.sources.npz_file import NpzFile, as_ids, class_ids, per_row, read_labels, read_values
from fedimb.errors import DataError
from fedimb.registry import register


@register("source", "embeddings_npz")
@dataclass(frozen=True)
class EmbeddingsNpz:
    """Embeddings and labels from an .npz file.

    x [n, d] float32, used unchanged.

    The file holds ``x`` [n, d] float, ``y`` [n] class ids or names, or [n, C] of 0 and 1 if rows have several labels,
    and optionally ``class_names`` [C] text, ``sites`` [n] ids or names, ``site_names`` [S] text, ``patients`` [n]
    integers or text, ``test`` [n] bool.

    Args:
        path: the file; see `fedimb.data.paths`.
        l2_normalise: divide every row by its length.
        class_names, site_names: replace those of the file.
        on_bad: `fedimb.data.problems`.
    """

    path: str
    l2_normalise: bool = False
    class_names: list[str] | None = None
    site_names: list[str] | None = None
    on_bad: str = "refuse"

    def fingerprint(self) -> str:
        """Of the file."""
        return fingerprint("embeddings_npz-1", [self.path])

    def load(self) -> SourceData:
        """Read the file.

        Raises:
            DataError: not an .npz, arrays missing or of the wrong shape or type, bad rows.
        """
        problems = Problems(self.on_bad)
        with NpzFile(self.path) as arrays:
            x, good = read_values(arrays, "x", problems)
            if x.ndim != 2 or x.dtype != np.float32:
                raise DataError(f"{self.path} x is {x.dtype} {list(x.shape)}; give float32 [n, d]")
            class_names = _names(arrays, "class_names", self.class_names)
            y, good = read_labels(arrays, "y", good, class_names, problems)
            if self.l2_normalise:
                x, good = _unit_rows(x, good, self.path, problems)
            site_names = _names(arrays, "site_names", self.site_names)
            sites, good = _sites(arrays, good, site_names, problems)
            patients = _patients(arrays, len(x))
            test = per_row(arrays, "test", len(x)) if "test" in arrays.keys else None
            if test is not None and test.dtype != np.bool_:
                raise DataError(f"{self.path} test is {test.dtype}; give bool, True for a row of the test set")
        skipped = problems.settle(int(good.sum()))
        ids, targets, class_list = class_ids(y[good], class_names)
        site_ids, site_list = (None, ()) if sites is None else as_ids(sites[good], site_names)
        return SourceData(
            x=x[good],
            y=ids,
            class_names=class_list,
            sites=site_ids,
            site_names=site_list,
            patients=None if patients is None else patients[good],
            official_test=None if test is None else test[good],
            task="multiclass" if targets is None else "multilabel",
            targets=targets,
            skipped=skipped,
        )

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`. ``ids`` [n], numbers or text, name the rows; labels may be absent."""

        def prepare(
            x: NDArray[np.generic], good: NDArray[np.bool_], start: int
        ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
            return _unit_rows(x, good, self.path, problems, start) if self.l2_normalise else (x, good)

        with NpzFile(self.path) as arrays:
            yield from npz_batches(arrays, [("x", "y")], prepare, expected, problems)


def _names(arrays: NpzFile, key: str, given: list[str] | None) -> list[str] | None:
    if given is not None or key not in arrays.keys:
        return given
    names = arrays[key]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{arrays.path} {key} is {names.dtype} {list(names.shape)}; give text, one name each")
    return [str(name) for name in names]


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


def _sites(
    arrays: NpzFile, good: NDArray[np.bool_], names: list[str] | None, problems: Problems
) -> tuple[NDArray[np.generic] | None, NDArray[np.bool_]]:
    if "sites" not in arrays.keys:
        if names is not None:
            raise DataError(f"{arrays.path} has site_names but no sites; add sites, one per row")
        return None, good
    sites = per_row(arrays, "sites", len(good))
    if sites.dtype.kind == "U":
        wrong = sites == "" if names is None else ~np.isin(sites, names)
    elif sites.dtype.kind in "iu":
        wrong = sites < 0 if names is None else (sites < 0) | (sites >= len(names))
    else:
        raise DataError(f"{arrays.path} sites is {sites.dtype}; give site ids as integers, or names as text")
    for row in np.flatnonzero(good & wrong):
        problems.add(f"{arrays.path} sites[{row}]", f"site {sites[row].item()!r} is not known; see site_names")
    # Site ids without names serve as names: ids without rows do not become sites.
    return (sites.astype(str) if names is None else sites), good & ~wrong


def _patients(arrays: NpzFile, n: int) -> NDArray[np.int64] | None:
    if "patients" not in arrays.keys:
        return None
    patients = per_row(arrays, "patients", n)
    if patients.dtype.kind not in "iuU":
        raise DataError(f"{arrays.path} patients is {patients.dtype}; give ids as integers or text")
    return np.unique(patients, return_inverse=True)[1].astype(np.int64)
