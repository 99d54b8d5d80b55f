"""A CNN trained on images of the same task that no client has: shows how good selection could be with a good encoder.

Its training images are those that a long tail leaves out, so results are an upper reference with the provenance
``oracle-auxiliary``: no real federation has such images. experiments/encoders/disjoint_cnn.py creates the file; it
contains digests of the training images, and a row that is among them is refused.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedimb.data.sources.files import fingerprint, regular_file
from fedimb.encoders.base import Encoder
from fedimb.encoders.checks import class_names_expected, images_expected
from fedimb.errors import DataError, nearest
from fedimb.models.cnn4conv import CNN4Conv
from fedimb.plain import JsonObject
from fedimb.registry import register

_OWN = ("class_means", "trained_on")  # tensors in addition to the weights


@register("encoder", "disjoint_cnn")
class DisjointCnn(Encoder):
    """Penultimate features of a trained cnn4conv; class vectors are the class means over its training images.

    Args:
        path: a file written by `write_encoder`; see `fedimb.data.paths`.
        input_shape: of one row (given by fedimb).

    Raises:
        ConfigError: the data are not images.
        DataError: no such file, not written by `write_encoder`, or for images of another shape.
    """

    provenance = "oracle-auxiliary"

    def __init__(self, path: str, *, input_shape: tuple[int, ...]) -> None:
        images_expected("disjoint_cnn", input_shape)
        facts, tensors = _read(path)
        if tuple(facts["input_shape"]) != tuple(input_shape):
            raise DataError(f"{path} reads images {facts['input_shape']}, this data has {list(input_shape)}")
        self.path, self._names = path, list(facts["class_names"])
        self._means = tensors.pop("class_means")
        self._trained_on = tensors.pop("trained_on").numpy()
        with torch.device("meta"):  # draws no initial weights, and none from the global generator
            self._model = CNN4Conv(len(self._names), tuple(input_shape), facts["width"], facts["norm"])
        self._model.load_state_dict(tensors, assign=True)
        self._model.eval()
        self._key = fingerprint("disjoint_cnn-1", [path])

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Images [n, *input_shape] float32 in 0..1 -> features [n, d] float32.

        Raises:
            DataError: an image that the encoder was trained on.
        """
        seen = np.isin(digests(x), self._trained_on)
        if seen.any():
            raise DataError(
                f"{int(seen.sum())} of {len(x)} images are among the training images of {self.path}: it is not "
                "disjoint from this data. Draw the tail from the rows it reserved, or train it for this seed "
                "(docs/encoders.md)"
            )
        features: Tensor = self._model.features(x)
        return features

    def class_vectors(self, class_names: tuple[str, ...]) -> Tensor:
        """[C, d] float32, the directions of the class means, in the order of ``class_names``.

        Raises:
            ConfigError: names empty or repeated.
            DataError: a class that it was not trained on.
        """
        class_names_expected("disjoint_cnn", class_names)
        for name in class_names:
            if name not in self._names:
                raise DataError(f"{self.path} has no class '{name}'.{nearest(name, self._names)}")
        return self._means[[self._names.index(name) for name in class_names]]

    def fingerprint(self) -> str:
        return self._key


def digests(x: Tensor) -> NDArray[np.int64]:
    """Images [n, *shape] float32 in 0..1 -> [n] int64, equal for images of equal grey levels 0..255."""
    levels = (x * 255).round().to(torch.uint8).flatten(1).numpy()
    each = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in levels)
    return np.frombuffer(b"".join(each), dtype="<i8").astype(np.int64)


def write_encoder(
    path: Path, model: CNN4Conv, facts: JsonObject, class_means: Tensor, trained_on: NDArray[np.int64]
) -> None:
    """Write the file that this encoder reads.

    Args:
        facts: ``class_names``, ``input_shape``, ``width`` and ``norm`` of the model, and any description of its
            training.
        class_means: [C, d] float32.
        trained_on: `digests` of every training image.
    """
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    own = {"class_means": class_means.contiguous(), "trained_on": torch.from_numpy(np.sort(trained_on))}
    save_file(weights | own, path, metadata={"disjoint_cnn": json.dumps(facts)})


def _read(path: str) -> tuple[JsonObject, dict[str, Tensor]]:
    try:
        with safe_open(regular_file(path), framework="pt") as file:
            facts: JsonObject = json.loads((file.metadata() or {})["disjoint_cnn"])
            names = file.keys()  # not a dict
            tensors = {name: file.get_tensor(name) for name in names}
        if missing := [name for name in _OWN if name not in tensors]:
            raise KeyError(missing[0])
    except (SafetensorError, KeyError, OSError) as error:
        raise DataError(
            f"{path} is not a file of experiments/encoders/disjoint_cnn.py ({error}): create one with that script"
        ) from error
    return facts, tensors
