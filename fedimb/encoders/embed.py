"""From a configuration to the embeddings of a client's rows: how the rest of fedimb uses encoders.

encoder = open_encoder({"name": "random_conv"}, store)
embeddings = unit_rows(embed(encoder, store, rows))
"""

import json
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb import registry
from fedimb.data.scaling import Scaling
from fedimb.data.store import Store
from fedimb.data.views import to_tensors
from fedimb.encoders.base import Encoder
from fedimb.encoders.cache import cache_key, load_or_compute
from fedimb.encoders.checks import finite_rows
from fedimb.errors import ConfigError, DataError

GIVEN = ("input_shape", "n_rows", "labels")
"""Arguments that fedimb passes to an encoder's constructor; the user cannot set them (`registry.check_args`)."""

BATCH = 64


def open_encoder(config: Mapping[str, object], store: Store) -> Encoder:
    """The encoder ``{name: ..., **arguments}`` for a store's rows, built once per process.

    Raises:
        ConfigError: unknown encoder or argument, or data it cannot read.
        DataError: a required file or folder is missing or does not match.
    """
    if not isinstance(config.get("name"), str):
        raise ConfigError("encoder needs a name, for example encoder: {name: global_features}")
    return _opened(json.dumps(dict(config), sort_keys=True), store)


@lru_cache(maxsize=4)
def _opened(config: str, store: Store) -> Encoder:
    args = json.loads(config)
    given = {"input_shape": store.input_shape, "n_rows": len(store), "labels": store.y}
    encoder: Encoder = registry.build("encoder", args.pop("name"), given, **args)
    return encoder


def embed(
    encoder: Encoder, store: Store, rows: NDArray[np.int64], scaling: Scaling | None = None, batch: int = BATCH
) -> Tensor:
    """Embeddings [m, d] float32 of a store's rows, in the order of ``rows``; finite, of any length (`unit_rows`).

    Computed in batches, and stored on disk if the encoder is ``cached``; a second call then reads the file.

    Args:
        rows: [m] int64, of the store.
        scaling: of a table's columns, as in the client's views (`ClientData.scaling`).
        batch: rows per pass, at least 1.

    Raises:
        ConfigError: the encoder ``uses_model``: its embeddings are the model's features.
        DataError: rows outside the store, or an embedding that is not finite.
    """
    if encoder.uses_model:
        raise ConfigError("this encoder's embeddings are the global model's features: use those instead of embed()")
    rows = np.asarray(rows, dtype=np.int64)
    if rows.ndim != 1 or ((rows < 0) | (rows >= len(store))).any():
        raise DataError(f"embed: rows must be a list of numbers from 0 to {len(store) - 1}, the store's rows")
    if len(rows) == 0:
        return embed(encoder, store, np.zeros(1, np.int64), scaling)[:0]
    what = f"encoder {type(encoder).__name__}"
    if encoder.by_row:
        return finite_rows(what, encoder.lookup(rows))

    @torch.no_grad()
    def make() -> Tensor:
        parts = []
        for start in range(0, len(rows), batch):
            x, _ = to_tensors(store, rows[start : start + batch], scaling)
            part = encoder.encode(x)
            if len(part) != len(x):
                raise DataError(f"{what} gave {len(part)} embeddings for {len(x)} rows; fix its encode()")
            parts.append(part)
        return finite_rows(what, torch.cat(parts))

    if not encoder.cached:
        return make()
    return load_or_compute(cache_key(encoder.fingerprint(), store, rows, scaling), len(rows), make)
