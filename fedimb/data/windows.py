"""Windows of long recordings, as views: ten thousand windows of a day's recording need no second copy of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.rows import Rows
from fedimb.errors import DataError
from fedimb.plain import JsonObject


@dataclass(frozen=True)
class SignalFacts:
    """What the values of signals x [n, channels, length] are.

    Attributes:
        rate_hz: samples per second; None: not known.
        channels: name of each channel; empty: not known.
        length: samples of a window at ``rate_hz``, from its origin on. A spectrogram has fewer columns.
    """

    rate_hz: float | None = None
    channels: tuple[str, ...] = ()
    length: int = 0

    def facts(self) -> JsonObject:
        """As plain values, for JSON."""
        return {"rate_hz": self.rate_hz, "channels": list(self.channels), "length": self.length}

    @staticmethod
    def from_facts(facts: JsonObject) -> "SignalFacts":
        """Inverse of `facts`."""
        rate = facts["rate_hz"]
        return SignalFacts(None if rate is None else float(rate), tuple(facts["channels"]), int(facts["length"]))


class Windows:
    """Windows [n, channels, length] of recordings: an array for whoever takes rows of it, and only those are copied.

    ``windows[rows]`` (a number, a slice, numbers or booleans) is an array of its own; ``numpy.asarray(windows)`` copies
    all of them.

    Args:
        recording: [channels, samples] float32, all recordings one after another; may be a memory map.
        starts: [n] int64, the first sample of each window.
        length: samples of a window.
        standardise: whether each window's channels are given with mean 0 and deviation 1 (`standardised`).

    Raises:
        DataError: a window that is not inside.

    Example:
        >>> windows = Windows(np.arange(8, dtype=np.float32)[None], np.array([0, 2, 4]), 4)
        >>> windows.shape, windows[1].tolist()
        ((3, 1, 4), [[2.0, 3.0, 4.0, 5.0]])
    """

    ndim = 3

    def __init__(self, recording: NDArray[np.float32], starts: Rows, length: int, standardise: bool = False) -> None:
        self.recording, self.length, self.standardise = recording, length, standardise
        self.starts = np.asarray(starts, np.int64)
        if recording.ndim != 2 or recording.dtype != np.float32 or self.starts.ndim != 1 or length < 1:
            raise DataError(
                f"recording is {recording.dtype} {list(recording.shape)} with windows of {length}: give float32 "
                "[channels, samples], and windows of at least one sample"
            )
        outside = np.flatnonzero((self.starts < 0) | (self.starts + length > recording.shape[1]))
        if len(outside):
            at = int(self.starts[outside[0]])
            raise DataError(
                f"window {outside[0]} is of samples {at} to {at + length} of a recording of {recording.shape[1]}: cut "
                "windows inside it"
            )

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, channels, length)."""
        return len(self.starts), self.recording.shape[0], self.length

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return self.recording.dtype

    @property
    def size(self) -> int:
        """Values of all windows; those that overlap count more than once."""
        return len(self) * self.recording.shape[0] * self.length

    @property
    def nbytes(self) -> int:
        """Bytes that all windows would take as an array of their own; not of memory."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        starts = self.starts[rows]
        out = np.empty((starts.size, self.recording.shape[0], self.length), np.float32)
        for i, start in enumerate(starts.ravel().tolist()):
            out[i] = self.recording[:, start : start + self.length]
        if self.standardise:
            out = standardised(out)
        return out.reshape(*starts.shape, *out.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("all windows at once are a copy: take the rows that are needed")
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def kept(self, rows: NDArray[np.bool_]) -> "Windows":
        """The windows where ``rows`` [n] is True, of the same recording."""
        return Windows(self.recording, self.starts[rows], self.length, self.standardise)


def standardised(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Windows [m, channels, length] -> each channel of each window with mean 0 and population deviation 1, float32.

    A channel with one value in a window becomes 0. No other window counts, so nothing of the test set is seen.

    Example:
        >>> standardised(np.array([[[1, 3], [5, 5]]], np.float32)).tolist()
        [[[-1.0, 1.0], [0.0, 0.0]]]
    """
    mean = x.mean(axis=-1, keepdims=True, dtype=np.float64)
    centred = x - mean
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True))
    varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)  # beside float32's rounding of a constant
    return np.where(varies, centred / np.where(varies, deviation, 1.0), 0.0).astype(np.float32)


def overlap_groups(recordings: Rows | None, origins: Rows, length: int) -> Rows | None:
    """[n] int64 ids of windows that share samples, directly or through others; None if no two do.

    Args:
        recordings: [n] recording of each window; None: all are of one.
        origins: [n] first sample of each window in its recording.
        length: samples of a window.

    Example:
        >>> overlap_groups(None, np.array([0, 64, 256, 320]), 128).tolist()
        [0, 0, 1, 1]
    """
    recordings = np.zeros(len(origins), np.int64) if recordings is None else recordings
    order = np.lexsort((origins, recordings))
    apart = np.r_[True, np.diff(recordings[order]) != 0] | np.r_[True, np.diff(origins[order]) >= length]
    if apart.all():
        return None
    groups = np.empty(len(origins), np.int64)
    groups[order] = np.cumsum(apart) - 1
    return groups
