"""What an encoder offers: embeddings of rows, and, where it reads text, a vector per class."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class Encoder:
    """Base class of frozen encoders. Built once per process; must give a row the same vector whatever the batch.

    Its constructor may ask for what `fedimb.encoders.embed.open_encoder` passes: ``input_shape`` of one row, ``n_rows``
    and ``labels`` [n_rows] int64 of the store. It must fail there when a file or folder is missing or the data do not
    suit, and draw from no global random generator.

    ``uses_model``: the embeddings are the federation's own model's penultimate features, so the platform passes them in
    and `encode` is never called.
    ``by_row``: the embeddings are looked up by row of the store: `lookup` is called, `encode` never.
    ``cached``: worth keeping on disk (`fedimb.encoders.cache`).
    ``provenance``: what was seen besides the clients' data: ``none``, ``external`` (somebody's pretraining) or
    ``oracle-auxiliary`` (images of the same task that no client has); a comparison must not mix them unsaid.
    """

    uses_model: ClassVar[bool] = False
    by_row: ClassVar[bool] = False
    cached: ClassVar[bool] = True
    provenance: str = "none"

    def encode(self, x: Tensor) -> Tensor:
        """Inputs [n, *shape] float32 (as the data views give them) -> embeddings [n, d] float32, not yet normalised."""
        raise NotImplementedError(f"{type(self).__name__} must implement encode()")

    def lookup(self, rows: NDArray[np.int64]) -> Tensor:
        """Rows [m] of the store -> embeddings [m, d] float32, where ``by_row``."""
        raise NotImplementedError(f"{type(self).__name__} must implement lookup()")

    def class_vectors(self, class_names: tuple[str, ...]) -> Tensor | None:
        """[C, d] float32 from the classes' names, or None: class means over all clients are used instead.

        Whoever overrides this always answers with vectors: a server knows by the class alone which it is.
        """
        return None

    def fingerprint(self) -> str:
        """What determines the embeddings besides the inputs: part of the cache's key."""
        raise NotImplementedError(f"{type(self).__name__} must implement fingerprint()")
