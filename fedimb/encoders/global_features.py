"""The federation's own model as encoder: penultimate features of the current global model.

Needs no file and suits any data, tables included; class vectors are class means over the clients
(`fedimb.selection.prototypes`). On digits the best of the encoders that need nothing (docs/encoders.md).
"""

from torch import Tensor

from fedimb.encoders.base import Encoder
from fedimb.registry import register


@register("encoder", "global_features")
class GlobalFeatures(Encoder):
    """Penultimate features of the current global model.

    The platform passes them in; they change with the model, so nothing is kept on disk.
    """

    uses_model = True
    cached = False

    def encode(self, x: Tensor) -> Tensor:
        """Never called: see `Encoder.uses_model`."""
        raise RuntimeError("encoder 'global_features' has no embeddings of its own: pass the model's features")

    def fingerprint(self) -> str:
        return "global_features-1"
