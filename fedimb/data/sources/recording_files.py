"""Long recordings in WAV, EDF and WFDB files, read some seconds at a time: never a file twice in memory."""

import contextlib
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError, DataError

_INSTALL = "pip install 'fedimb[signals]'"
_CHUNK_VALUES = 1 << 18  # values of a block, over all channels: little beside a recording
SUFFIXES = (".wav", ".edf", ".bdf", ".hea")


class RecordingFile(Protocol):
    """An opened recording.

    Attributes:
        rates: samples per second of each channel.
        channels: their names.
        samples: samples of each channel.
        units: of each channel's values, such as uV; "" where the file does not say.
    """

    rates: tuple[float, ...]
    channels: tuple[str, ...]
    samples: tuple[int, ...]
    units: tuple[str, ...]

    def read(self, chosen: Sequence[int], start: int, count: int) -> NDArray[np.floating[Any]]:
        """``count`` samples of the chosen channels from ``start`` on, [channels, count], in physical units."""

    def close(self) -> None:
        """Close the file."""


@contextlib.contextmanager
def open_recording(path: Path) -> Iterator[RecordingFile]:
    """A recording by its file's suffix: .wav (standard library), .edf and .bdf (pyEDFlib), .hea (wfdb).

    Raises:
        ConfigError: another suffix, or a library that is not installed.
        DataError: a file that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"{path.name}: recordings are read from {', '.join(SUFFIXES)} files")
    opened: Callable[[Path], RecordingFile] = _Wav if suffix == ".wav" else _Wfdb if suffix == ".hea" else _Edf
    try:
        file = opened(path)
    except (OSError, ValueError, KeyError, IndexError, EOFError, wave.Error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path.name} cannot be read as {suffix} ({reason:.120})") from error
    try:
        yield file
    finally:
        file.close()


def blocks(file: RecordingFile, chosen: Sequence[int], place: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first sample, [channels, samples] float32) from start to end, a few megabytes at a time.

    Raises:
        DataError: the file ends before its header says, or cannot be read.
    """
    total = file.samples[chosen[0]]
    at_once = max(1, _CHUNK_VALUES // len(chosen))
    for start in range(0, total, at_once):
        count = min(at_once, total - start)
        try:
            part = file.read(chosen, start, count)
        except (OSError, ValueError, EOFError, wave.Error) as error:
            raise DataError(
                f"{place} is damaged after sample {start} ({type(error).__name__}); copy it again"
            ) from error
        if part.shape != (len(chosen), count):
            raise DataError(f"{place} ends after sample {start + part.shape[1]} of {total}; copy it again")
        with np.errstate(over="ignore"):  # becomes infinite, which is looked for in every window
            yield start, part.astype(np.float32)


class _Wav:
    """PCM of 8 to 32 bits, as numbers from -1 to 1."""

    def __init__(self, path: Path) -> None:
        self._file = wave.open(str(path), "rb")  # noqa: SIM115 - `close` closes it
        n = self._file.getnchannels()
        self.rates = (float(self._file.getframerate()),) * n
        self.channels = tuple(f"channel_{c + 1}" for c in range(n))
        self.samples = (self._file.getnframes(),) * n
        self.units = ("",) * n

    def read(self, chosen: Sequence[int], start: int, count: int) -> NDArray[np.floating[Any]]:
        self._file.setpos(start)
        raw, width = self._file.readframes(count), self._file.getsampwidth()
        if width == 1:
            values = np.frombuffer(raw, np.uint8).astype(np.int32) - 128
        elif width == 3:  # into the upper three bytes of four
            wide = np.zeros((len(raw) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(raw, np.uint8)[: 3 * len(wide)].reshape(-1, 3)
            values, width = wide.view("<i4").ravel(), 4
        else:
            values = np.frombuffer(raw, {2: "<i2", 4: "<i4"}[width])
        frames = values.reshape(-1, len(self.channels))[:, list(chosen)]
        return np.ascontiguousarray(frames.T) / float(1 << (8 * width - 1))

    def close(self) -> None:
        self._file.close()


class _Edf:
    """EDF, EDF+ without gaps, and BDF, in the physical units of the header."""

    def __init__(self, path: Path) -> None:
        try:
            import pyedflib
        except ImportError:
            raise ConfigError(f"{path.name}: reading {path.suffix} files needs pyEDFlib: {_INSTALL}") from None
        self._file = pyedflib.EdfReader(str(path), annotations_mode=pyedflib.DO_NOT_READ_ANNOTATIONS)
        self.rates = tuple(map(float, self._file.getSampleFrequencies()))
        self.channels = tuple(label.strip() for label in self._file.getSignalLabels())
        self.samples = tuple(map(int, self._file.getNSamples()))
        self.units = tuple(self._file.getPhysicalDimension(c).strip() for c in range(len(self.channels)))

    def read(self, chosen: Sequence[int], start: int, count: int) -> NDArray[np.floating[Any]]:
        out = np.empty((len(chosen), count), np.float32)
        for i, c in enumerate(chosen):
            out[i] = self._file.readSignal(c, start, count)
        return out

    def close(self) -> None:
        self._file.close()


class _Wfdb:
    """WFDB, in the physical units of the header; samples that are marked as missing are NaN."""

    def __init__(self, path: Path) -> None:
        try:
            import wfdb
        except ImportError:
            raise ConfigError(f"{path.name}: reading .hea files needs wfdb: {_INSTALL}") from None
        self._read, self._name = wfdb.rdrecord, str(path.with_suffix(""))
        header = wfdb.rdheader(self._name, rd_segments=True)
        self.channels = tuple(header.sig_name or ())
        self.rates = (float(header.fs),) * len(self.channels)
        self.samples = (int(header.sig_len),) * len(self.channels)
        said = getattr(header, "units", None) or [None] * len(self.channels)  # of several segments: each has its own
        self.units = tuple(unit or "" for unit in said)

    def read(self, chosen: Sequence[int], start: int, count: int) -> NDArray[np.floating[Any]]:
        record = self._read(self._name, sampfrom=start, sampto=start + count, channels=list(chosen))
        values: NDArray[np.floating[Any]] = np.asarray(record.p_signal).T
        return values

    def close(self) -> None:
        """Nothing is kept open."""


def data_files(path: Path) -> list[Path]:
    """The files of a recording: itself, and of a WFDB header the files next to it of the same name."""
    if path.suffix.lower() != ".hea":
        return [path]
    others = sorted(path.parent.glob(f"{path.stem}*.dat")) + sorted(path.parent.glob(f"{path.stem}*.mat"))
    return [path, *others]


@dataclass(frozen=True)
class Chosen:
    """The channels of a recording that are read.

    Attributes:
        at: their numbers in the file.
        names: in that order.
        rate_hz: of them all.
        samples: of each.
        units: of the values of each; "" where the file does not say.
    """

    at: tuple[int, ...]
    names: tuple[str, ...]
    rate_hz: float
    samples: int
    units: tuple[str, ...]

    def in_other_units(self, other: "Chosen") -> str:
        """Which of the same channels has values in other units there, in words; "" if none is known to have."""
        for name, own, its in zip(self.names, self.units, other.units, strict=True):
            if own and its and _spelled(own) != _spelled(its):
                return f"channel '{name}' in {own} and {its}"
        return ""


def _spelled(unit: str) -> str:
    """A unit without regard to how it is written: micro as u, and capital letters."""
    return unit.replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u").casefold()


def choose_channels(file: RecordingFile, wanted: Sequence[str] | None, place: str) -> Chosen:
    """The channels named ``wanted``, in that order; None: all of them.

    Raises:
        DataError: a channel that is not there or there twice, channels of different rates, or no sample.
    """
    names = list(wanted) if wanted is not None else list(file.channels)
    for name in names:
        if (times := file.channels.count(name)) != 1:
            held = ", ".join(file.channels[:24])
            what = "no channel" if times == 0 else f"{times} channels"
            raise DataError(f"{place} has {what} '{name}'; it has {held}: give data.source.channels=[...]")
    at = tuple(file.channels.index(name) for name in names)
    found = {(file.rates[c], file.samples[c]) for c in at}
    if len(found) != 1:
        shown = ", ".join(f"{file.channels[c]} {file.rates[c]:g} Hz" for c in at[:12])
        raise DataError(
            f"{place}: channels have different rates or lengths ({shown}): choose those of one rate with "
            "data.source.channels=[...]"
        )
    ((rate, samples),) = found
    if not rate > 0 or samples < 1:
        raise DataError(f"{place} has {samples} samples at {rate:g} Hz; leave it out of the list")
    return Chosen(at, tuple(names), rate, samples, tuple(file.units[c] for c in at))
