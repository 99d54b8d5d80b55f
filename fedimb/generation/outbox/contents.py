"""The contents of an outbox's files: packed samples, their hashes, and the marks of recalled batches."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fedimb.annotation.private import write_private
from fedimb.errors import DataError
from fedimb.plain import JsonObject
from fedimb.privacy.audit.types import Batch

RECALLED = "recalled.json"


def pack_batch(batch: Batch) -> bytes:
    """Pack a batch as safetensors, x as float32: the same samples give the same bytes."""
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {
        "x": np.ascontiguousarray(batch.x, np.float32),
        "y": np.ascontiguousarray(batch.y, np.int64),
    }
    if batch.d is not None:
        arrays["d"] = np.ascontiguousarray(batch.d, np.int64)
    data: bytes = save(arrays)
    return data


def unpack_batch(data: bytes) -> Batch:
    """Inverse of `pack_batch`."""
    from safetensors.numpy import load

    arrays = load(data)
    return Batch(arrays["x"], arrays["y"], arrays.get("d"))


def mark_recalled(run: Path, id: str, told: Mapping[str, str]) -> None:
    """Write into a run's folder that a batch it used was recalled."""
    write_private(run / RECALLED, as_json({**recalled_batches(run), id: dict(told)}))


def recalled_batches(run: Path) -> dict[str, dict[str, str]]:
    """Recalled batches a run used: id -> reason and time. DataError: the mark is damaged."""
    path = run / RECALLED
    if not path.exists():
        return {}
    try:
        marks: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); restore it from a copy") from error
    return marks


def class_hashes(batch: Batch) -> JsonObject:
    """Samples and SHA-256 per class."""
    parts = {str(label): np.ascontiguousarray(batch.of(label).x, np.float32) for label in np.unique(batch.y).tolist()}
    hashes = {label: hashlib.sha256(x.tobytes()).hexdigest() for label, x in parts.items()}
    return {"samples": {label: len(x) for label, x in parts.items()}, "sha256_of_class": hashes}


def class_title(about: Mapping[str, Any], label: int) -> str:
    names = about.get("class_names", [])
    return f"{label} ({names[label]})" if 0 <= label < len(names) else str(label)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def as_json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
