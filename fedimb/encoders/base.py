"""What an encoder offers: embeddings of rows, and, where it reads text, a vector per class."""

from typing import ClassVar

from torch import Tensor


class Encoder:
    """Base class of frozen encoders. Built once per process; must give a row the same vector whatever the batch.

    ``uses_model``: the embeddings are the federation's own model's penultimate features, so the platform passes them in
    and `encode` is never called.
    """

    uses_model: ClassVar[bool] = False

    def encode(self, x: Tensor) -> Tensor:
        """Inputs [n, *shape] float32 (as the data views give them) -> embeddings [n, d] float32, not yet normalised."""
        raise NotImplementedError(f"{type(self).__name__} must implement encode()")

    def class_vectors(self, class_names: tuple[str, ...]) -> Tensor | None:
        """[C, d] float32 from the classes' names, or None: class means over all clients are used instead."""
        return None

    def fingerprint(self) -> str:
        """What determines the embeddings besides the inputs: part of the cache's key."""
        raise NotImplementedError(f"{type(self).__name__} must implement fingerprint()")
