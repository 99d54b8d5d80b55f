"""Base class of encoders: embeddings of rows and, if the encoder reads text, a vector per class."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Encoder:
    """Base class of frozen encoders. Built once per process; a row must get the same vector in any batch.

    The constructor may take the arguments that `fedimb.encoders.embed.open_encoder` passes: ``input_shape`` of one row,
    ``n_rows`` and ``labels`` [n_rows] int64 of the store. It must raise if a file or folder is missing or the data are
    unsuitable, and must not use a global random generator.

    ``uses_model``: the embeddings are the federation's own model's penultimate features, so the platform computes them
    and `encode` is never called.
    ``by_row``: the embeddings are looked up by row of the store: `lookup` is called, `encode` never.
    ``cached``: whether to cache embeddings on disk (`fedimb.encoders.cache`).
    ``provenance``: what else the encoder was trained on: ``none``, ``external`` (pretraining) or ``oracle-auxiliary``
    (images of the same task that no client has); a comparison must not mix these without saying so.
    """

    uses_model: ClassVar[bool] = False
    by_row: ClassVar[bool] = False
    cached: ClassVar[bool] = True
    provenance: str = "none"

    def encode(self, x: Tensor) -> Tensor:
        """Inputs [n, *shape] float32 (as in the data views) -> embeddings [n, d] float32, not yet normalised."""
        raise NotImplementedError(f"{type(self).__name__} must implement encode()")

    def lookup(self, rows: NDArray[np.int64]) -> Tensor:
        """Rows [m] of the store -> embeddings [m, d] float32, if ``by_row``."""
        raise NotImplementedError(f"{type(self).__name__} must implement lookup()")

    def class_vectors(self, class_names: tuple[str, ...]) -> Tensor | None:
        """[C, d] float32 from the classes' names, or None: class means over all clients are used instead.

        An override must always return vectors: the server decides by the class alone which case applies.
        """
        return None

    def fingerprint(self) -> str:
        """What determines the embeddings apart from the inputs; part of the cache key."""
        raise NotImplementedError(f"{type(self).__name__} must implement fingerprint()")
