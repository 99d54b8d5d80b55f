"""A linear projection to few dimensions, the same at every client: random, or principal components of public rows.

Components fitted on one client's rows would make embeddings of two clients incomparable, and sharing them would reveal
something about the rows. So there are two choices: random Gaussian directions, which preserve distances and angles up
to about 1 / sqrt(dims) (Johnson and Lindenstrauss, 1984), or components of a file of public rows.
"""

import math

import numpy as np
import torch
from torch import Tensor

from fedimb.data.problems import Problems
from fedimb.data.sources.files import fingerprint
from fedimb.data.sources.npz_file import NpzFile, read_values
from fedimb.encoders.base import Encoder
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register
from fedimb.seeds import Stream, torch_generator


@register("encoder", "pca")
class Pca(Encoder):
    """Rows projected to few dimensions: minus a mean (zero for random directions), times a matrix.

    Args:
        dims: d, dimensions of an embedding.
        path: null: random directions. A .npz with ``x`` [m, *shape] of public rows: their principal components
            (m and the values of a row must be at least dims).
        scale: factor from that file's values to the model's inputs, such as 0.00392157 for grey levels.
        seed: of the random directions, which must be the same at every client.
        input_shape: of one row (given by fedimb).

    Raises:
        ConfigError: a number out of range.
        DataError: no such file, or rows of another shape or too few.
    """

    cached = False  # one matrix product: as fast as reading a file

    def __init__(
        self,
        dims: int = 32,
        path: str | None = None,
        scale: float = 1.0,
        seed: int = 0,
        *,
        input_shape: tuple[int, ...],
    ) -> None:
        if dims < 1 or seed < 0:
            raise ConfigError(
                f"encoder 'pca': dims={dims}, seed={seed}: give dims of at least 1 and a seed of at least 0"
            )
        if not (math.isfinite(scale) and scale > 0):
            raise ConfigError(f"encoder 'pca': scale={scale}: give a finite number above 0")
        width = math.prod(input_shape)
        if path is None:
            self._mean = torch.zeros(width, dtype=torch.float64)
            drawn = torch.randn(width, dims, generator=torch_generator(seed, Stream.METHOD))
            self._matrix = drawn.double() / math.sqrt(dims)
            self._key = f"pca-1-random-{dims}-{seed}-{width}"
            return
        self.provenance = "external"
        self._mean, self._matrix = _components(path, dims, scale, tuple(input_shape))
        self._key = f"pca-1-{dims}-{scale!r}-{fingerprint('file', [path])}"

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Inputs [n, *input_shape] float32 -> [n, dims] float32."""
        return ((x.flatten(1).double() - self._mean) @ self._matrix).float()  # float64: the same in any batch

    def fingerprint(self) -> str:
        return self._key


def _components(path: str, dims: int, scale: float, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(mean [D], components [D, dims]) of the file's rows, float64."""
    from sklearn.decomposition import PCA

    problems = Problems()
    with NpzFile(path) as arrays:
        x, _ = read_values(arrays, "x", problems)
    problems.settle(len(x))
    if tuple(x.shape[1:]) != shape:
        raise DataError(f"{path} x has rows of {list(x.shape[1:])}, the data {list(shape)}; give rows like the data's")
    rows = x.reshape(len(x), -1).astype(np.float64) * scale
    if dims > min(rows.shape):
        raise DataError(f"{path} has {len(rows)} rows of {rows.shape[1]} values; dims={dims} must not exceed either")
    fitted = PCA(dims, svd_solver="full").fit(rows)
    return torch.from_numpy(fitted.mean_), torch.from_numpy(np.ascontiguousarray(fitted.components_.T))
