"""Unchanged rows: for tables, and for embeddings that the source embeddings_npz reads."""

from torch import Tensor

from fedimb.encoders.base import Encoder
from fedimb.registry import register


@register("encoder", "identity")
class Identity(Encoder):
    """The values of a row in one vector, as the model gets them: table columns are centred and scaled over all
    clients."""

    cached = False

    def encode(self, x: Tensor) -> Tensor:
        """Inputs [n, *shape] float32 -> [n, values of a row]; images become their pixels."""
        return x.flatten(1)

    def fingerprint(self) -> str:
        return "identity-1"
