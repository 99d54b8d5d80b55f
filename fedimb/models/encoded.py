"""A linear head on a frozen encoder: the model is the encoder and one trained layer."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedimb import registry
from fedimb.errors import ConfigError
from fedimb.models.base import Classifier
from fedimb.models.heads import OWN_HEAD, Head, build_head
from fedimb.registry import register

_MOST_BYTES = 256 * 1024**2
"""Embeddings kept in memory by each process."""


@register("model", "encoded", when=OWN_HEAD)
class Encoded(Classifier):
    """A frozen encoder, then a head: its features are the encoder's embeddings, and only the head is trained and sent.

    A row is encoded once in each process: later passes over it read its embedding from memory.

    Args:
        encoder: {name: ..., ...} of the kind encoder.
        n_classes: outputs (given by fedimb).
        input_shape: shape of one input, without the batch axis (given by fedimb).
        head: as for other models.

    Raises:
        ConfigError: an encoder that reads the federation's model, or looks rows up instead of reading them.
    """

    def __init__(
        self,
        n_classes: int,
        input_shape: tuple[int, ...],
        encoder: Mapping[str, Any] | None = None,
        head: Head = "linear",
    ) -> None:
        super().__init__()
        args = dict(encoder or {"name": "random_features"})
        name = args.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError("model 'encoded': encoder needs a name, for example encoder: {name: random_features}")
        factory: Any = registry.get("encoder", name).factory
        if factory.uses_model or factory.by_row:
            why = "reads the federation's model" if factory.uses_model else "looks rows up by their number"
            raise ConfigError(
                f"model 'encoded': encoder '{name}' {why}, so it cannot encode new rows; use another encoder, or "
                "data=embeddings_npz for embeddings made elsewhere"
            )
        self.encoder = _opened(json.dumps({"name": name, **args}, sort_keys=True), input_shape)
        with torch.no_grad():
            width = self.encoder.encode(torch.zeros(1, *input_shape)).shape[1]
        self.head = build_head(head, width, n_classes)
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()
        self._most = max(_MOST_BYTES // (4 * width), 1)

    def features(self, x: Tensor) -> Tensor:
        """Inputs [n, *input_shape] -> embeddings [n, d], without gradient."""
        rows = x.detach().cpu().contiguous()
        keys = [hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest() for row in rows]
        missing = list({key: i for i, key in enumerate(keys) if key not in self._known}.values())
        found = {key: self._known[key] for key in keys if key in self._known}
        if missing:
            with torch.no_grad():
                made = self.encoder.encode(rows[missing])
            for i, embedding in zip(missing, made, strict=True):
                found[keys[i]] = self._known[keys[i]] = embedding.clone()
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        if not keys:
            return x.new_zeros((0, self.head.in_features))
        return torch.stack([found[key] for key in keys]).to(x.device)


_open: dict[tuple[str, tuple[int, ...]], Any] = {}


def _opened(config: str, input_shape: tuple[int, ...]) -> Any:
    """An encoder, built once in each process: it is frozen, and some take seconds to read."""
    if (config, input_shape) not in _open:
        args = json.loads(config)
        given = {"input_shape": input_shape, "n_rows": 0, "labels": None}
        _open[config, input_shape] = registry.build("encoder", args.pop("name"), given, **args)
    return _open[config, input_shape]
