"""Signals at another sampling rate, and as pictures: spectrograms by the short-time Fourier transform."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedimb.errors import ConfigError, DataError, nearest

ZScore = Literal["channel", "window", "none"]
_MOST_TERMS = 10_000  # of a ratio of rates: beyond it the filter is longer than any recording
_QUIET = 1e-10  # power below which a spectrogram does not go on: the logarithm of silence
_CHUNK_VALUES = 1 << 22


def resample_ratio(rate_hz: float, wanted_hz: float) -> Fraction:
    """``wanted_hz / rate_hz`` in whole numbers. ConfigError if a rate is not above 0, or they have no such ratio."""
    for rate in (rate_hz, wanted_hz):
        if not (math.isfinite(rate) and rate > 0):
            raise ConfigError(f"a sampling rate of {rate:g} Hz: give a number above 0")
    exact = Fraction(wanted_hz).limit_denominator(1_000_000) / Fraction(rate_hz).limit_denominator(1_000_000)
    if max(exact.numerator, exact.denominator) > _MOST_TERMS:
        raise ConfigError(f"{rate_hz:g} Hz cannot be resampled to {wanted_hz:g} Hz: give rates with a simpler ratio")
    return exact


def resampled_length(samples: int, ratio: Fraction) -> int:
    """How many samples `resample` makes of ``samples``: ``ceil(samples x ratio)``."""
    return -(-samples * ratio.numerator // ratio.denominator)


def resample(x: NDArray[np.float32], ratio: Fraction) -> NDArray[np.float32]:
    """Signals [..., length] at ``ratio`` times their rate, float32 [..., ceil(length x ratio)].

    A polyphase filter (`scipy.signal.resample_poly`) that lets through what both rates can hold, so a lower rate has no
    aliases. Each end is continued by a line through both ends, since zeros beyond it would ring.
    """
    if ratio == 1:
        return np.asarray(x, np.float32)
    from scipy.signal import resample_poly

    made = resample_poly(np.asarray(x, np.float64), ratio.numerator, ratio.denominator, axis=-1, padtype="line")
    return np.ascontiguousarray(made, np.float32)


@dataclass(frozen=True)
class Spectrogram:
    """``transform={name: stft, ...}`` or ``{name: logmel, ...}``: a window [channels, length] -> a picture [channels,
    bands, frames].

    The power ``|X|^2`` of the short-time Fourier transform (`torch.stft`, periodic Hann window, no padding) in its
    ``window / 2 + 1`` bins, or summed by triangles that are equally wide in mel (``2595 log10(1 + f / 700)``); then the
    natural logarithm, of at least 1e-10. The lowest band comes first. Frames lie inside the window of the signal: there
    are ``1 + (length - window) // hop``.

    Args:
        name: stft or logmel.
        window: samples of a frame.
        hop: samples between frames; None: half of ``window``.
        bands: of logmel.
        low_hz, high_hz: between which the bands of logmel lie; None for ``high_hz``: half of the rate.

    Raises:
        ConfigError: a setting out of range.
    """

    name: str = "stft"
    window: int = 64
    hop: int | None = None
    bands: int = 32
    low_hz: float = 0.0
    high_hz: float | None = None

    @staticmethod
    def parse(raw: Mapping[str, Any] | None, source: str) -> "Spectrogram | None":
        """Check names and types; None for None."""
        if raw is None:
            return None
        known = {field.name for field in fields(Spectrogram)}
        if raw.get("name") not in ("stft", "logmel"):
            raise ConfigError(f"source '{source}': transform={dict(raw)!r}: give {{name: stft}} or {{name: logmel}}")
        only = ("bands", "low_hz", "high_hz") if raw["name"] == "stft" else ()
        for key, value in raw.items():
            if key not in known or key in only:
                near = nearest(str(key), sorted(known - set(only)))
                raise ConfigError(f"source '{source}': transform {raw['name']} has no setting '{key}'.{near}")
            whole = key in ("window", "hop", "bands")
            number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if key != "name" and not number and not (value is None and key in ("hop", "high_hz")):
                raise ConfigError(f"source '{source}': transform.{key}={value!r}: give a {'whole ' * whole}number")
        made = Spectrogram(**raw)
        if made.window < 2 or made.bands < 1 or (made.hop is not None and made.hop < 1):
            raise ConfigError(
                f"source '{source}': transform={dict(raw)!r}: give a window of at least 2 samples, a hop and bands of "
                "at least 1"
            )
        return made

    def shape(self, length: int) -> tuple[int, int]:
        """(bands, frames) of a window of ``length`` samples. ConfigError if not one frame fits."""
        if length < self.window:
            raise ConfigError(
                f"data.source.transform.window={self.window} is longer than the {length} samples of a row: give less"
            )
        return (
            self.window // 2 + 1 if self.name == "stft" else self.bands,
            1 + (length - self.window) // self._hop,
        )

    @property
    def _hop(self) -> int:
        return self.hop or max(1, self.window // 2)

    def __call__(self, x: NDArray[np.float32], rate_hz: float | None) -> NDArray[np.float32]:
        """Windows [m, channels, length] -> pictures [m, channels, bands, frames], float32.

        Raises:
            ConfigError: a window longer than the rows; of logmel no rate, or bands that hold no bin.
        """
        import torch

        m, channels, length = x.shape
        bands, frames = self.shape(length)
        mel = None if self.name == "stft" else torch.from_numpy(self.filters(rate_hz))
        out = np.empty((m, channels, bands, frames), np.float32)
        hann = torch.hann_window(self.window)
        at_once = max(1, _CHUNK_VALUES // max(1, channels * (self.window // 2 + 1) * frames))
        for start in range(0, m, at_once):
            part = torch.from_numpy(np.ascontiguousarray(x[start : start + at_once], np.float32))
            bins = torch.stft(
                part.reshape(-1, length), self.window, self._hop, window=hann, center=False, return_complex=True
            )
            power = bins.real.square() + bins.imag.square()
            if mel is not None:
                power = torch.einsum("bk,nkt->nbt", mel, power)
            out[start : start + len(part)] = power.clamp_min(_QUIET).log().view(-1, channels, bands, frames).numpy()
        return out

    def filters(self, rate_hz: float | None) -> NDArray[np.float32]:
        """[bands, window / 2 + 1] float32: weight of each bin in each band of logmel, at most 1.

        Raises:
            ConfigError: no rate, a range that is none, or a band so narrow that no bin lies in it.
        """
        if rate_hz is None:
            raise ConfigError("data.source.transform=logmel needs the sampling rate: give data.source.rate_hz")
        high = rate_hz / 2 if self.high_hz is None else self.high_hz
        if not 0 <= self.low_hz < high <= rate_hz / 2:
            raise ConfigError(
                f"data.source.transform: bands from {self.low_hz:g} to {high:g} Hz at {rate_hz:g} Hz: give low_hz "
                f"below high_hz, and that at most half of the rate, {rate_hz / 2:g}"
            )
        corners = _hertz(np.linspace(_mel(self.low_hz), _mel(high), self.bands + 2))
        bins = np.arange(self.window // 2 + 1) * rate_hz / self.window
        left, centre, right = (corners[i : self.bands + i, None] for i in range(3))
        weights = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clip(0)
        if empty := int((weights.max(axis=1) == 0).sum()):
            raise ConfigError(
                f"data.source.transform: {empty} of {self.bands} bands hold no frequency of frames of {self.window} "
                "samples: give fewer bands or a longer window"
            )
        return weights.astype(np.float32)


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return 700 * (10 ** (mel / 2595) - 1)


def check_rate(place: str, found: float | None, given: float | None) -> float | None:
    """The sampling rate that a file and the settings say. DataError if they differ or it is not above 0."""
    if found is not None and given is not None and not math.isclose(found, given, rel_tol=1e-6):
        raise DataError(f"{place} says {found:g} Hz, data.source.rate_hz={given:g}: leave rate_hz out, or fix the file")
    rate = given if found is None else found
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise DataError(f"{place}: a sampling rate of {rate:g} Hz: give a number above 0")
    return rate
