"""Embeddings cached on disk: one .npy per encoder, store and set of rows, memory-mapped by every worker.

Files are written atomically (to a temporary file, then renamed), so several processes may create the same one: all
write the same bytes and the last wins. A damaged file is created again. The folder may be deleted at any time.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedimb.data.scaling import Scaling
from fedimb.data.store import Store, cache_dir

FORMAT = 1  # increased when the file format changes
log = logging.getLogger("fedimb")


def cache_key(encoder: str, store: Store, rows: NDArray[np.int64], scaling: Scaling | None = None) -> str:
    """32 hex digits that change with anything that could change an embedding.

    Args:
        encoder: its fingerprint.
        rows: [m] int64 rows of the store, in order.
        scaling: of a table's columns, as in `fedimb.data.views.to_tensors`.
    """
    # The store's folder name depends on its source's arguments; the fingerprint alone may cover only the file.
    data = [store.fingerprint, store.path.name, list(store.x.shape), str(store.x.dtype), store.scale]
    facts = [FORMAT, encoder, *data, scaling.facts() if scaling else None, torch.__version__]
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
    return digest.hexdigest()[:32]


def load_or_compute(key: str, n: int, make: Callable[[], Tensor]) -> Tensor:
    """The [n, d] float32 tensor cached under ``key``, or ``make()``, which is then cached.

    The tensor is a private map of the file: writing to it changes neither the file nor another reader. If the cache
    folder cannot be written, the new tensor is returned with a warning.
    """
    path = cache_dir("embeddings") / f"{key}.npy"
    found = _read(path, n)
    if found is not None:
        return found
    made = make()
    try:
        _write(path, made)
    except OSError as error:
        log.warning("embeddings are not cached: %s cannot be written (%s)", path.parent, error.strerror or error)
        return made
    written = _read(path, n)
    return made if written is None else written


def _read(path: Path, n: int) -> Tensor | None:
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing or truncated
        return None
    if array.ndim != 2 or len(array) != n or array.dtype != np.float32:
        return None
    return torch.from_numpy(array)


def _write(path: Path, values: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, values.contiguous().numpy(), allow_pickle=False)
        os.chmod(name, 0o644)  # mkstemp makes it private; a shared cache must be readable by other users
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
