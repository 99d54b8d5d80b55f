"""The federation's own model as encoder: penultimate features of the current global model.

Needs no file and works with any data, including tables; class vectors are class means over the clients
(`fedimb.selection.prototypes`). On digits the best of the encoders without files (docs/encoders.md).
"""

from torch import Tensor

from fedimb.encoders.base import Encoder
from fedimb.registry import register


@register("encoder", "global_features")
class GlobalFeatures(Encoder):
    """Penultimate features of the current global model.

    The platform computes them; they change with the model, so nothing is cached on disk.
    """

    uses_model = True
    cached = False

    def encode(self, x: Tensor) -> Tensor:
        """Never called: see `Encoder.uses_model`."""
        raise RuntimeError("encoder 'global_features' does not compute embeddings: use the model's features")

    def fingerprint(self) -> str:
        return "global_features-1"
