"""Embeddings computed elsewhere by any encoder: one per row of the data's store, in the same order."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.data.problems import Problems
from fedimb.data.sources.files import fingerprint
from fedimb.data.sources.npz_file import NpzFile, read_values
from fedimb.encoders.base import Encoder
from fedimb.encoders.checks import class_names_expected
from fedimb.errors import DataError, nearest
from fedimb.registry import register


@register("encoder", "precomputed")
class Precomputed(Encoder):
    """Embeddings from a file, looked up by row.

    The .npz holds ``x`` [n, d] float, row i of the data's store (as read by the source: image folders sorted by path),
    and optionally ``y`` [n] class ids, which must equal those of the data and so verify the order.

    Args:
        path: the file; see `fedimb.data.paths`.
        n_rows, labels: of the data (given by fedimb).

    Raises:
        DataError: no such file, not one embedding per row, labels that differ, values that are not finite.
    """

    cached = False
    by_row = True
    provenance = "external"

    def __init__(self, path: str, *, n_rows: int, labels: NDArray[np.int64]) -> None:
        problems = Problems()
        with NpzFile(path) as arrays:
            x, _ = read_values(arrays, "x", problems)
            problems.settle(len(x))
            if x.ndim != 2 or x.dtype != np.float32:
                raise DataError(f"{path} x is {x.dtype} {list(x.shape)}; give float embeddings [rows, d]")
            if len(x) != n_rows:
                raise DataError(
                    f"{path} has {len(x)} embeddings and the data {n_rows} rows; embed every row of the data, in order"
                )
            if "y" in arrays.keys:
                _same_labels(path, arrays["y"], labels)
        self.path, self._x, self._key = path, x, fingerprint("precomputed-1", [path])

    def lookup(self, rows: NDArray[np.int64]) -> Tensor:
        """Rows [m] of the store -> the file's embeddings [m, d] float32, a copy."""
        return torch.from_numpy(self._x[rows])

    def fingerprint(self) -> str:
        return self._key


@register("encoder", "precomputed_text")
class PrecomputedText(Precomputed):
    """Embeddings and class vectors from a file.

    As `Precomputed`, and the file also holds ``class_vectors`` [C, d] float and ``class_names`` [C] text, such as those
    of a text encoder.

    Args:
        path, n_rows, labels: see `Precomputed`.

    Raises:
        DataError: see `Precomputed`; no class vectors, or not one per name, finite and as long as an embedding.
    """

    def __init__(self, path: str, *, n_rows: int, labels: NDArray[np.int64]) -> None:
        super().__init__(path, n_rows=n_rows, labels=labels)
        with NpzFile(path) as arrays:
            vectors, names = arrays["class_vectors"], arrays["class_names"]
        width = self._x.shape[1]
        if vectors.shape != (len(names), width) or vectors.dtype.kind != "f" or not np.isfinite(vectors).all():
            raise DataError(
                f"{path} class_vectors is {vectors.dtype} {list(vectors.shape)}; give finite floats "
                f"[{len(names)}, {width}]: one vector per class name, as long as an embedding"
            )
        self._names, self._vectors = [str(name) for name in names], vectors.astype(np.float32)

    def class_vectors(self, class_names: tuple[str, ...]) -> Tensor:
        """[C, d] float32 of the file in the order of ``class_names``.

        Raises:
            ConfigError: names empty or repeated.
            DataError: a class the file does not name.
        """
        class_names_expected("precomputed_text", class_names)
        for name in class_names:
            if name not in self._names:
                raise DataError(f"{self.path} class_names lacks '{name}'.{nearest(name, self._names)}")
        return torch.from_numpy(self._vectors[[self._names.index(name) for name in class_names]])


def _same_labels(path: str, found: NDArray[np.generic], labels: NDArray[np.int64]) -> None:
    wrong = np.flatnonzero(found != np.asarray(labels)) if found.shape == labels.shape else np.zeros(1, np.int64)
    if len(wrong):
        raise DataError(
            f"{path} y {list(found.shape)} differs from the data's labels ({len(wrong)} rows, first {wrong[0]}): "
            f"the embeddings belong to other rows or another order; embed the data again"
        )
