"""Flower records as files and numpy arrays: pack, unpack, payload size.

There is one file format (for query results, client state and checkpoints): safetensors, with arrays under
``record/key`` and everything else as JSON in the header. No pickle, so reading a file executes no code.
"""

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from safetensors import SafetensorError
from safetensors.numpy import load as _load
from safetensors.numpy import save as _save

from fedimb.atomic import write_atomic
from fedimb.by_reference import nbytes, reference, view
from fedimb.errors import FedimbError

Arrays = dict[str, np.ndarray]


def array_record(arrays: Mapping[str, np.ndarray], copy: bool = True) -> ArrayRecord:
    """Named numpy arrays as a Flower ArrayRecord, without serialising them (see `fedimb.by_reference`).

    Args:
        copy: False: the caller gives the arrays away and never writes to them again.
    """
    record = ArrayRecord()
    for key, value in arrays.items():
        record[key] = reference(np.asarray(value), copy)
    return record


def to_numpy(record: ArrayRecord) -> Arrays:
    """A Flower ArrayRecord as named numpy arrays, each a fresh writable copy."""
    return {key: view(value).copy() for key, value in record.items()}


def arrays_of(content: RecordDict, key: str) -> Arrays:
    """An array record of a message or a state as numpy arrays (`to_numpy`). Raises KeyError if it is missing."""
    return to_numpy(cast(ArrayRecord, content[key]))


def payload_bytes(content: RecordDict) -> int:
    """Payload bytes of a message's content: array buffers, 8 per number, UTF-8 strings and blobs (without headers).

    Example:
        >>> weights = array_record({"w": np.zeros((10, 64), np.float32)})
        >>> reply = RecordDict({"arrays": weights, "metrics": MetricRecord({"steps": 5})})
        >>> payload_bytes(reply)  # 640 numbers of 4 bytes, and one of 8
        2568
    """
    total = 0
    for record in content.values():
        if isinstance(record, ArrayRecord):
            total += sum(nbytes(array) for array in record.values())
        else:
            total += sum(_scalar_bytes(value) for value in record.values())
    return total


def _scalar_bytes(value: object) -> int:
    if isinstance(value, list):
        return sum(_scalar_bytes(item) for item in value)
    if isinstance(value, str):
        value = value.encode(errors="surrogatepass")
    return len(value) if isinstance(value, bytes) else 8


# Types that safetensors stores directly; other types that Flower carries (text, complex128, dates) become .npy bytes.
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_PLAIN = _INTEGERS | {"bool", "float16", "float32", "float64"}


def pack(content: RecordDict, note: str | None = None) -> bytes:
    """A RecordDict as safetensors bytes; `unpack` restores it exactly.

    Args:
        note: a text to keep beside the records (`note_of`); the bytes then also hold their own hash (`is_intact`).

    Example:
        >>> content = RecordDict({"x.counts": array_record({"counts": np.array([3, 1])})})
        >>> unpack(pack(content)).array_records["x.counts"]["counts"].numpy().tolist()
        [3, 1]
    """
    arrays: Arrays = {}
    header: dict[str, object] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            stored: dict[str, str] = {}
            encoded = []
            for key, array in record.items():
                value = array.numpy()
                if value.dtype.name not in _PLAIN or not value.dtype.isnative:
                    value = _npy(value)
                    encoded.append(key)
                stored[key] = f"{name}/{key}"
                while stored[key] in arrays:  # 'a' + 'b/c' and 'a/b' + 'c' give the same path
                    stored[key] += "'"
                arrays[stored[key]] = _contiguous(value)
            header[name] = {"kind": "arrays", "keys": stored, "npy": encoded}
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            header[name] = {"kind": kind, "values": {key: _encode(value) for key, value in record.items()}}
    if note is None:
        return _save(arrays, metadata={"records": json.dumps(header)})
    return _with_hash(arrays, {"records": json.dumps(header), "note": note})


def unpack(data: bytes) -> RecordDict:
    """Inverse of `pack`. Raises FedimbError if the bytes are damaged or are not packed records."""
    try:
        return _unpack(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FedimbError(
            f"these {len(data)} bytes are not packed records ({type(error).__name__}: {error}); "
            "the file is damaged or was not written by fedimb"
        ) from error


def _unpack(data: bytes) -> RecordDict:
    arrays = _load(data)
    header = json.loads(_metadata(data)["records"])
    content = RecordDict()
    for name, entry in header.items():
        if entry["kind"] == "arrays":
            values = {key: arrays[stored] for key, stored in entry["keys"].items()}
            values |= {key: np.load(io.BytesIO(values[key].tobytes()), allow_pickle=False) for key in entry["npy"]}
            content[name] = array_record(values)
        else:
            scalars = {key: _decode(value) for key, value in entry["values"].items()}
            content[name] = MetricRecord(scalars) if entry["kind"] == "metrics" else ConfigRecord(scalars)
    return content


def _npy(value: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=False)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def _contiguous(value: np.ndarray) -> np.ndarray:
    # Not np.ascontiguousarray: it turns a 0-d array (BatchNorm's num_batches_tracked) into one of shape (1,).
    return np.asarray(value, order="C")


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata


def _encode(value: object) -> object:
    if isinstance(value, list):
        return [_encode(item) for item in value]
    return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return base64.b64decode(value["bytes"]) if isinstance(value, dict) else value


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], info: Mapping[str, object]) -> None:
    """Write arrays and ``info`` (as JSON) to one file, atomically (temporary file, then rename)."""
    write_atomic(path, pack_arrays(arrays, info))


def load_arrays(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Inverse of `save_arrays`. Raises FedimbError if the file is missing or damaged."""
    try:
        return unpack_arrays(path.read_bytes())
    except (OSError, FedimbError) as error:
        raise FedimbError(f"cannot read {path}: {error}") from error


def pack_arrays(arrays: Mapping[str, np.ndarray], info: Mapping[str, object]) -> bytes:
    """Arrays and ``info`` (as JSON) as safetensors bytes that hold their own hash (`is_intact`)."""
    return _with_hash({k: _contiguous(v) for k, v in arrays.items()}, {"info": json.dumps(info)})


def unpack_arrays(data: bytes) -> tuple[Arrays, dict[str, Any]]:
    """Inverse of `pack_arrays`. Raises FedimbError if the bytes are damaged."""
    try:
        if is_intact(data) is False:
            raise ValueError("a byte of it was changed: its content does not have the hash it was written with")
        return _load(data), json.loads(_metadata(data)["info"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FedimbError(str(error)) from error


_BLANK = "0" * 64
_HASH_FIELD = b'"sha256":"'


def _with_hash(arrays: Arrays, metadata: dict[str, str]) -> bytes:
    """Safetensors bytes with a field ``sha256`` in the header: the hash of all bytes with 64 zeros in its place."""
    data = bytearray(_save(arrays, metadata=metadata | {"sha256": _BLANK}))
    start = _hash_position(data)
    data[start : start + 64] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


def _hash_position(data: bytes | bytearray) -> int:
    """Where the 64 digits of the hash start; -1 if there is no such field in the header."""
    end = 8 + int.from_bytes(data[:8], "little")
    # Quotes within other fields are escaped, so only the field itself matches.
    found = data.find(_HASH_FIELD, 8, min(end, len(data)))
    return -1 if found < 0 else found + len(_HASH_FIELD)


def stored_hash(data: bytes) -> str | None:
    """The hash that the bytes say they were written with; None if they hold none (fedimb 0.1)."""
    start = _hash_position(data)
    return None if start < 0 else data[start : start + 64].decode("ascii", errors="replace")


def is_intact(data: bytes) -> bool | None:
    """Whether bytes of `pack` or `pack_arrays` are as they were written; None if they hold no hash (fedimb 0.1)."""
    start = _hash_position(data)
    if start < 0:
        return None
    digest = hashlib.sha256(data[:start])
    digest.update(_BLANK.encode())
    digest.update(memoryview(data)[start + 64 :])
    return digest.hexdigest().encode() == data[start : start + 64]


def note_of(data: bytes) -> str | None:
    """The note that `pack` was given; None if there is none."""
    return _metadata(data).get("note")
