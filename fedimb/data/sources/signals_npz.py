"""Windows of signals in one .npz, with the patient, recording and place of each window."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import SourceData
from fedimb.data.new_rows import Expected, RowBatch, check_signal
from fedimb.data.problems import Problems
from fedimb.data.signal_transforms import Spectrogram, ZScore, check_rate, resample, resample_ratio
from fedimb.data.sources.cell_map import Cells
from fedimb.data.sources.files import fingerprint
from fedimb.data.sources.new_arrays import IDS, npz_batches
from fedimb.data.sources.npz_file import NpzFile, likely_arrays, per_row, read_names
from fedimb.data.sources.npz_labels import LabelKind, LabelRule, NameList, Value
from fedimb.data.sources.npz_rows import PLAIN, PartKeys, check_attributes, read_rows
from fedimb.data.windows import SignalFacts, overlap_groups, standardised
from fedimb.errors import ConfigError, DataError
from fedimb.registry import register

OVERLAPPING = "groups of overlapping windows"
_ARRAYS = ("x", "y", "sites", "patients", "test", "class_names", "site_names", "channels", "rate_hz", "recordings")


@register("source", "signals_npz")
@dataclass(frozen=True)
class SignalsNpz:
    """Windows of signals and labels from an .npz file, such as UCI HAR or ECG5000.

    x [n, channels, length] float32, each channel scaled by the mean and deviation of all clients' training windows.

    The file holds ``x`` [n, channels, length] float, ``y`` as of source npz, and optionally ``patients`` [n] whole
    numbers or text (rows of one are never on two sides of a split), ``sites`` [n], ``test`` [n] bool, ``class_names``
    [C], ``site_names`` [S] and ``channels`` text, and ``rate_hz``, one number. Where windows were cut from longer
    recordings: ``origins`` [n], the first sample of each in its recording, and ``recordings`` [n] (without it a patient
    is one recording, or all is). Without patients, windows that share samples are then kept together. An array whose
    name is nearly one of these is refused as misspelt.

    Args:
        path: the file; see `fedimb.data.paths`.
        rate_hz: samples per second, where the file does not say it.
        resample_hz: the rate at which x is used (`fedimb.data.signal_transforms.resample`, each window by itself).
        zscore: ``channel``: as above; ``window``: each channel of each window by its own mean and deviation; ``none``.
        transform: ``{name: stft, ...}`` or ``{name: logmel, ...}`` makes pictures [channels, bands, frames] of the
            windows (`fedimb.data.signal_transforms.Spectrogram`), which are then scaled by channel unless zscore=none.
        class_names, site_names: replace those of the file: a list in the order of the ids, or id -> name.
        arrays, label_map, ignore_label, labels, cell_map: as of source npz.
        on_bad: `fedimb.data.problems`.
        attributes: arrays of ``data.subgroups``, one value per row.

    Raises:
        ConfigError: a setting out of range.
    """

    path: str
    rate_hz: float | None = None
    resample_hz: float | None = None
    zscore: ZScore = "channel"
    transform: dict[str, Any] | None = None
    class_names: NameList | None = None
    site_names: NameList | None = None
    arrays: dict[str, str | None] | None = None
    label_map: dict[int | str, str] | None = None
    ignore_label: Value | list[Value] | None = None
    labels: LabelKind | None = None
    on_bad: str = "refuse"
    attributes: tuple[str, ...] = ()
    cell_map: Cells | None = None

    def __post_init__(self) -> None:
        self._rule()  # refuses settings that contradict each other
        Spectrogram.parse(self.transform, "signals_npz")
        for rate in (self.rate_hz, self.resample_hz):
            if rate is not None:
                resample_ratio(rate, rate)

    def _rule(self) -> LabelRule:
        return LabelRule("signals_npz", self.class_names, self.label_map, self.ignore_label, self.labels, self.cell_map)

    def _parts(self, arrays: NpzFile) -> list[PartKeys]:
        return [PLAIN]

    def fingerprint(self) -> str:
        """Of the file."""
        return fingerprint("signals_npz-1", [self.path])

    def load(self) -> SourceData:
        """Read the file.

        Raises:
            DataError: not an .npz, arrays missing or of the wrong shape or type, bad rows, or a recording of two
                patients.
        """
        problems = Problems(self.on_bad)
        with NpzFile(self.path, self.arrays) as arrays:
            if "x" not in arrays.keys and (likely := likely_arrays(arrays.keys)):
                raise DataError(f"{self.path} has no array 'x'{likely}")
            check_attributes(arrays, self.attributes)
            arrays.check_unread((*_ARRAYS, "origins", *IDS, *self.attributes))
            rate, channels = self._rate(arrays), tuple(read_names(arrays, "channels") or ())
            lengths: list[int] = []

            def prepare(
                x: NDArray[np.generic], good: NDArray[np.bool_]
            ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
                self._check(x, channels)
                made = self._resampled(x, rate)
                lengths.extend((x.shape[2], made.shape[2]))
                return self._pictured(made, self._used_rate(rate)), good

            data = read_rows(
                arrays,
                self._parts(arrays),
                self._rule(),
                self.site_names,
                prepare,
                problems,
                attributes=self.attributes,
                also=self._places(arrays),
            )
        found: dict[str, Any] = {"signal": SignalFacts(self._used_rate(rate), channels, lengths[1])}
        if self.zscore == "channel" or (self.zscore == "window" and self.transform is not None):
            found["scaled"] = np.ones((data.x.shape[1], *[1] * (data.x.ndim - 2)), np.bool_)
        return replace(data, **found, **self._placed(data, lengths[0], rate))

    def new_rows(self, expected: Expected, problems: Problems) -> Iterator[RowBatch]:
        """See `fedimb.data.new_rows.NewRows`. ``ids`` [n], numbers or text, name the rows; labels may be absent.

        Raises:
            DataError: another sampling rate or other channels than the run's, besides what any source refuses.
        """
        with NpzFile(self.path, self.arrays) as arrays:
            rate, channels = self._rate(arrays), tuple(read_names(arrays, "channels") or ())
            check_signal(self.path, SignalFacts(self._used_rate(rate), channels), expected)

            def prepare(
                x: NDArray[np.generic], good: NDArray[np.bool_], start: int
            ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
                self._check(x, channels)
                return self._pictured(self._resampled(x, rate), self._used_rate(rate)), good

            yield from npz_batches(arrays, [("x", "y")], prepare, expected, problems, self._rule())

    def _rate(self, arrays: NpzFile) -> float | None:
        found = None
        if "rate_hz" in arrays.keys:
            held = arrays["rate_hz"]
            if held.size != 1 or held.dtype.kind not in "iuf":
                raise DataError(f"{self.path} rate_hz is {held.dtype} {list(held.shape)}; give one number")
            found = float(held.ravel()[0])
        rate = check_rate(self.path, found, self.rate_hz)
        if rate is None and self.resample_hz is not None:
            raise ConfigError(f"data.source.resample_hz: {self.path} says no rate; give data.source.rate_hz too")
        return rate

    def _used_rate(self, rate: float | None) -> float | None:
        return rate if self.resample_hz is None else self.resample_hz

    def _check(self, x: NDArray[np.generic], channels: tuple[str, ...]) -> None:
        if x.ndim != 3 or x.dtype != np.float32:
            raise DataError(f"{self.path} x is {x.dtype} {list(x.shape)}; give float32 [n, channels, length]")
        if channels and len(channels) != x.shape[1]:
            raise DataError(
                f"{self.path} names {len(channels)} channels, x is {list(x.shape)}: give [n, channels, length], "
                "with one name per channel"
            )

    def _resampled(self, x: NDArray[Any], rate: float | None) -> NDArray[np.float32]:
        if self.resample_hz is None or rate is None:
            return x
        return resample(x, resample_ratio(rate, self.resample_hz))

    def _pictured(self, x: NDArray[np.float32], rate: float | None) -> NDArray[np.float32]:
        picture = Spectrogram.parse(self.transform, "signals_npz")
        x = standardised(x) if self.zscore == "window" else x
        return x if picture is None else picture(x, rate)

    def _places(self, arrays: NpzFile) -> dict[str, NDArray[np.int64]]:
        """``recordings`` and ``origins`` [n], as far as the file has them."""
        if "origins" not in arrays.keys:
            if "recordings" in arrays.keys:
                raise DataError(
                    f"{self.path} has recordings and no origins: give origins too, the first sample of each window in "
                    "its recording, or arrays={recordings: null}"
                )
            return {}
        n = len(arrays["y"])
        origins: NDArray[Any] = per_row(arrays, "origins", n)
        if origins.dtype.kind not in "iu" or origins.min(initial=0) < 0:
            raise DataError(f"{self.path} origins is {origins.dtype}; give whole numbers of samples from 0")
        found = {"origins": origins.astype(np.int64)}
        key = next((key for key in ("recordings", "patients") if key in arrays.keys), None)
        if key is not None:
            found["recordings"] = np.unique(per_row(arrays, key, n), return_inverse=True)[1].astype(np.int64)
        return found

    def _placed(self, data: SourceData, length: int, rate: float | None) -> dict[str, Any]:
        """Origins at the rate that is used; and where no patients are named, windows that share samples as what is kept
        together. ``length`` is that of a window in the file.
        """
        if data.origins is None:
            return {}
        found: dict[str, Any] = {}
        if data.patients is not None:
            check_recordings(self.path, data.recordings, data.patients)
        elif (groups := overlap_groups(data.recordings, data.origins, length)) is not None:
            found |= {"patients": groups, "units": OVERLAPPING}
        if rate is not None and self.resample_hz is not None:
            ratio = resample_ratio(rate, self.resample_hz)
            found["origins"] = data.origins * ratio.numerator // ratio.denominator
        return found


def check_recordings(place: str, recordings: NDArray[np.int64] | None, patients: NDArray[np.int64]) -> None:
    """Raise DataError if a recording has windows of two patients: one of them would be on both sides of a split."""
    if recordings is None:
        return
    pairs = np.unique(np.stack([recordings, patients], axis=1), axis=0)
    if len(pairs) > len(np.unique(recordings)):
        raise DataError(f"{place}: a recording has windows of two patients; give each recording a name of its own")
