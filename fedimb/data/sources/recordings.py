"""Long recordings cut into windows: a list of WAV, EDF or WFDB files, and what happens when in them."""

import csv
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from fedimb.data.arrays import PATIENTS, SourceData
from fedimb.data.identifiers import identifier, in_order
from fedimb.data.problems import Problems
from fedimb.data.signal_transforms import Spectrogram, ZScore, resample, resample_ratio, resampled_length
from fedimb.data.sources.files import fingerprint, regular_file
from fedimb.data.sources.recording_files import Chosen, blocks, choose_channels, data_files, open_recording
from fedimb.data.windows import SignalFacts, Windows
from fedimb.errors import ConfigError, DataError, nearest
from fedimb.registry import register

RECORDINGS = "recordings"
_COLUMNS = ("file", "label", "patient", "site", "test")
_EVENT_COLUMNS = ("file", "start_s", "stop_s", "label")
_TRUTH = {"1": True, "true": True, "test": True, "0": False, "false": False, "train": False, "": False}
_WINDOWS_AT_ONCE = 1024


@dataclass(frozen=True)
class _Listed:
    """A line of the list of recordings."""

    place: str
    name: str
    path: Path
    label: str | None
    patient: str | None
    site: str | None
    test: bool


@dataclass(frozen=True)
class _Event:
    place: str
    start_s: float
    stop_s: float
    label: str


@register("source", "recordings")
@dataclass(frozen=True)
class Recordings:
    """Windows of the recordings that a CSV file lists.

    x [n, channels, length] float32: views of the recordings, in the files' units (WAV: -1 to 1), each channel scaled by
    the mean and deviation of all clients' training windows. The first window of a recording begins with it; what is
    left at its end is not used.

    The list has a header line and the columns ``file`` (.wav, .edf, .bdf, or a WFDB header .hea; relative to the list),
    and optionally ``patient``, ``site``, ``test`` (1: of the official test set) and ``label``. Labels are of whole
    recordings, or ``events`` names a CSV with the columns ``file``, ``start_s``, ``stop_s`` and ``label``: a window has
    the label whose events cover most of it, if that is at least ``coverage`` of it, else ``background``. Without
    patients the windows of a recording stay together as a patient's do.

    EDF and WFDB need ``pip install 'fedimb[signals]'``.

    Args:
        path: the list; see `fedimb.data.paths`.
        window_s: seconds of a window; a whole number of samples.
        hop_s: seconds from one window's start to the next; None: ``window_s``, windows that do not overlap.
        events: the CSV of events; None: the list has labels.
        background: class of windows that no event covers.
        coverage: see above, in (0, 1].
        partial: windows that an event covers in part: ``background``, or ``drop``: they are left out.
        channels: names of the channels to read, in this order; None: those of the first recording.
        classes: all classes in their order; None: the background first, then those found.
        resample_hz, zscore, transform: as of source signals_npz. ``transform`` makes pictures of all windows, which are
            then no views.
        on_bad: `fedimb.data.problems`: windows with missing samples, recordings shorter than a window.

    Raises:
        ConfigError: a setting out of range.
    """

    path: str
    window_s: float
    hop_s: float | None = None
    events: str | None = None
    background: str = "background"
    coverage: float = 0.5
    partial: Literal["background", "drop"] = "background"
    channels: list[str] | None = None
    classes: list[str] | None = None
    resample_hz: float | None = None
    zscore: ZScore = "channel"
    transform: dict[str, Any] | None = None
    on_bad: str = "refuse"

    def __post_init__(self) -> None:
        for name in ("window_s", "hop_s", "resample_hz"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"source 'recordings': {name}={value}: give a number above 0")
        if not 0 < self.coverage <= 1:
            raise ConfigError(f"source 'recordings': coverage={self.coverage}: give a fraction above 0, at most 1")
        Spectrogram.parse(self.transform, "recordings")

    def fingerprint(self) -> str:
        """Of the list, the events and all recordings."""
        names = [self.path, *([self.events] if self.events else [])]
        found = fingerprint("recordings-1", [*names, *(str(file) for file in self.files())])
        folder = json.dumps([one.name for one in self._listed()])
        return f"{found}-{hashlib.sha256(folder.encode()).hexdigest()[:8]}"

    def files(self) -> list[Path]:
        """All files of the recordings."""
        return [file for one in self._listed() for file in data_files(one.path)]

    def load(self) -> SourceData:
        """Read the recordings and cut them.

        Raises:
            ConfigError: a window that is no whole number of samples, or a library that is not installed.
            DataError: a file is missing or damaged, recordings differ in rate, channels or units, an event is outside
                its recording, or windows are bad (`fedimb.data.problems`).
        """
        listed, problems = self._listed(), Problems(self.on_bad)
        events = self._events([one.name for one in listed])
        heads = self._heads(listed)
        rate = self.resample_hz or heads[0].rate_hz
        length, hop = self._samples("window_s", self.window_s, rate), self._hop(rate)
        sizes = [resampled_length(head.samples, resample_ratio(head.rate_hz, rate)) for head in heads]
        recording = np.empty((len(heads[0].names), sum(sizes)), np.float32)
        offsets = np.cumsum([0, *sizes[:-1]])
        labels: list[str] = []
        origins: list[NDArray[np.int64]] = []
        owner: list[int] = []
        for i, (one, head, size, offset) in enumerate(zip(listed, heads, sizes, offsets.tolist(), strict=True)):
            part = recording[:, offset : offset + size]
            _fill(part, one, head, rate)
            starts = np.arange(0, size - length + 1, hop, dtype=np.int64)
            if not len(starts):
                seconds = head.samples / head.rate_hz
                problems.add(one.name, f"is shorter than a window ({seconds:.4g} s of {self.window_s:g}); leave it out")
                continue
            named = self._labels(one, events.get(one.name, []), starts / rate, head.samples / head.rate_hz)
            missing = _missing(part, starts, length)
            for at in np.flatnonzero(missing).tolist():
                problems.add(f"{one.name} at {starts[at] / rate:.6g} s", "missing or infinite samples in the window")
            kept = np.array([name is not None for name in named]) & ~missing
            origins.append(starts[kept])
            owner += [i] * int(kept.sum())
            labels += [str(named[at]) for at in np.flatnonzero(kept).tolist()]
        skipped = problems.settle(len(labels))
        return self._source(listed, (recording, offsets), labels, origins, owner, skipped, length, rate, heads[0].names)

    def _source(
        self,
        listed: Sequence[_Listed],
        held: tuple[NDArray[np.float32], NDArray[np.int64]],
        labels: Sequence[str],
        origins: Sequence[NDArray[np.int64]],
        owner: Sequence[int],
        skipped: tuple[str, ...],
        length: int,
        rate: float,
        channels: tuple[str, ...],
    ) -> SourceData:
        recording, offsets = held
        places, of = np.concatenate(origins), np.array(owner, np.int64)
        windows = Windows(recording, offsets[of] + places, length, self.zscore == "window")
        x, picture = cast(Any, windows), Spectrogram.parse(self.transform, "recordings")
        if picture is not None:
            x = _pictures(windows, picture, rate)
        wanted = self.zscore == "channel" or (self.zscore == "window" and picture is not None)
        names = self._classes(labels)
        ids = {name: c for c, name in enumerate(names)}
        patients = [one.patient for one in listed]
        sites = [one.site for one in listed]
        site_names = tuple(in_order({site for site in sites if site is not None}))
        groups = _numbered([str(i) if one is None else f"p{one}" for i, one in enumerate(patients)])
        test = np.array([one.test for one in listed])[of]
        return SourceData(
            x=x,
            y=np.array([ids[label] for label in labels], np.int64),
            class_names=names,
            sites=None if not site_names else np.array([site_names.index(str(site)) for site in sites])[of],
            site_names=site_names,
            patients=groups[of],
            units=RECORDINGS if patients[0] is None else PATIENTS,
            official_test=test if test.any() else None,
            skipped=skipped,
            scaled=np.ones((x.shape[1], *[1] * (x.ndim - 2)), np.bool_) if wanted else None,
            signal=SignalFacts(rate, channels, length),
            recordings=of,
            origins=places,
        )

    def _listed(self) -> list[_Listed]:
        file = regular_file(self.path)
        found: list[_Listed] = []
        for place, row in _rows(self.path, _COLUMNS, ("file",)):
            for column in ("patient", "site", "label"):
                if column in row and not row[column]:
                    raise DataError(f"{place}: column '{column}' is empty; give each recording's, or leave it out")
            if (word := row.get("test", "").casefold()) not in _TRUTH:
                raise DataError(f"{place}: test is '{row['test']}'; give 1 or 0")
            name = row["file"]
            path = file.parent / name
            if not name or not path.is_file():
                raise DataError(f"{place}: no file '{name}' in {file.parent}")
            label, patient, site = (
                identifier(row[key]) if row.get(key) else None for key in ("label", "patient", "site")
            )
            found.append(_Listed(place, name, path, label, patient, site, _TRUTH[word]))
        if len({one.name for one in found}) < len(found):
            raise DataError(f"{self.path} lists a file twice; list each recording once")
        if self.events is None and found[0].label is None:
            raise DataError(f"{self.path} has no column 'label': give it, or data.source.events")
        if self.events is not None and found[0].label is not None:
            raise DataError(f"{self.path} has labels, and data.source.events gives others: leave one of them out")
        return found

    def _events(self, names: Sequence[str]) -> dict[str, list[_Event]]:
        found: dict[str, list[_Event]] = {}
        for place, row in [] if self.events is None else _rows(self.events, _EVENT_COLUMNS, _EVENT_COLUMNS):
            if row["file"] not in names:
                raise DataError(f"{place}: '{row['file']}' is not in {self.path}.{nearest(row['file'], names)}")
            try:
                start, stop = float(row["start_s"]), float(row["stop_s"])
            except ValueError:
                raise DataError(f"{place}: start_s and stop_s are seconds from the start of the file") from None
            if not 0 <= start < stop < math.inf:
                raise DataError(f"{place}: an event from {start:g} to {stop:g} s; give a start before its end")
            if not row["label"] or identifier(row["label"]) == self.background:
                raise DataError(f"{place}: label '{row['label']}' is empty or the background's; name the event")
            found.setdefault(row["file"], []).append(_Event(place, start, stop, identifier(row["label"])))
        return found

    def _heads(self, listed: Sequence[_Listed]) -> list[Chosen]:
        heads: list[Chosen] = []
        for one in listed:
            wanted = self.channels if self.channels is not None else heads[0].names if heads else None
            with open_recording(one.path) as file:
                heads.append(choose_channels(file, wanted, one.name))
        different = [i for i, head in enumerate(heads) if head.rate_hz != heads[0].rate_hz]
        if different and self.resample_hz is None:
            i = different[0]
            raise DataError(
                f"{listed[i].name} has {heads[i].rate_hz:g} Hz, {listed[0].name} {heads[0].rate_hz:g} Hz: give the "
                "rate to use, data.source.resample_hz"
            )
        for one, head in zip(listed, heads, strict=True):
            if units := heads[0].in_other_units(head):
                raise DataError(
                    f"{listed[0].name} and {one.name} have {units}: values are read in the files' units, so write the "
                    "files again in one"
                )
        return heads

    def _samples(self, name: str, seconds: float, rate: float) -> int:
        samples = round(seconds * rate)
        if samples < 1 or abs(samples - seconds * rate) > 1e-6 * samples:
            raise ConfigError(
                f"data.source.{name}={seconds:g}: {seconds * rate:g} samples at {rate:g} Hz; give a whole number"
            )
        return samples

    def _hop(self, rate: float) -> int:
        return self._samples("hop_s", self.window_s if self.hop_s is None else self.hop_s, rate)

    def _labels(
        self, one: _Listed, events: Sequence[_Event], starts_s: NDArray[np.float64], seconds: float
    ) -> list[str | None]:
        """The class of each window; None for one that is left out."""
        if self.events is None:
            return [one.label] * len(starts_s)
        for event in events:
            if event.stop_s > seconds + 1e-3:
                ends = f"the event ends at {event.stop_s:g} s, the file at {seconds:.6g} s"
                raise DataError(f"{event.place}: {ends}")
        names = sorted({event.label for event in events})
        covered = np.zeros((len(names), len(starts_s)))
        for k, name in enumerate(names):
            for start, stop in _merged(event for event in events if event.label == name):
                covered[k] += np.clip(np.minimum(starts_s + self.window_s, stop) - np.maximum(starts_s, start), 0, None)
        if not names:
            return [self.background] * len(starts_s)
        most, share = covered.argmax(axis=0), covered.max(axis=0) / self.window_s
        rest = None if self.partial == "drop" else self.background
        return [
            names[k] if part >= self.coverage - 1e-9 else rest if part > 1e-9 else self.background
            for k, part in zip(most.tolist(), share.tolist(), strict=True)
        ]

    def _classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        found = set(labels)
        if self.classes is not None:
            names = [identifier(name) for name in self.classes]
            if lacking := sorted(found - set(names)):
                raise DataError(f"label '{lacking[0]}' is not in data.source.classes.{nearest(lacking[0], names)}")
            return tuple(names)
        first = [self.background] if self.events is not None else []
        return (*first, *in_order(found - set(first)))


def _merged(events: Iterator[_Event]) -> list[tuple[float, float]]:
    """Stretches [start, stop) that events cover, those that overlap as one."""
    found: list[tuple[float, float]] = []
    for event in sorted(events, key=lambda one: one.start_s):
        if found and event.start_s <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], event.stop_s)
        else:
            found.append((event.start_s, event.stop_s))
    return found


def _rows(path: str, known: Sequence[str], needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, cells by column) of each line of a CSV file. DataError for unknown or missing columns, and no line."""
    try:
        with open(regular_file(path), newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = names
            for name in names:
                if name not in known or names.count(name) > 1:
                    raise DataError(f"{path}: column '{name}' is not known, or there twice.{nearest(name, known)}")
            if lacking := [name for name in needed if name not in names]:
                raise DataError(f"{path} has no column '{lacking[0]}'; it has {', '.join(names)}")
            lines = [(f"{path} row {reader.line_num}", row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({type(error).__name__}); save it as one") from error
    if not lines:
        raise DataError(f"{path} lists nothing; give a line for each recording")
    for place, row in lines:
        if None in row or None in row.values():
            raise DataError(f"{place} has more or fewer cells than the header line")
        yield place, {name: cell.strip() for name, cell in row.items()}


def _fill(part: NDArray[np.float32], one: _Listed, head: Chosen, rate: float) -> None:
    """Read a recording into ``part`` [channels, samples], at ``rate``."""
    ratio = resample_ratio(head.rate_hz, rate)
    with open_recording(one.path) as file:
        if ratio == 1:
            for start, block in blocks(file, head.at, one.name):
                part[:, start : start + block.shape[1]] = block
            return
        for c, at in enumerate(head.at):  # one channel at a time: the filter works on 8 bytes a value
            whole = np.concatenate([block[0] for _, block in blocks(file, [at], one.name)])
            part[c] = resample(whole, ratio)


def _missing(part: NDArray[np.float32], starts: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """[n] whether a window of ``part`` holds a sample that is not finite."""
    bad = np.zeros(part.shape[1], np.bool_)  # small beside the recording, which may take most of the memory
    for channel in part:
        bad |= ~np.isfinite(channel)
    places = np.flatnonzero(bad)
    found: NDArray[np.bool_] = np.searchsorted(places, starts + length) > np.searchsorted(places, starts)
    return found


def _pictures(windows: Windows, picture: Spectrogram, rate: float) -> NDArray[np.float32]:
    n, channels, length = windows.shape
    x = np.empty((n, channels, *picture.shape(length)), np.float32)
    for start in range(0, n, _WINDOWS_AT_ONCE):
        x[start : start + _WINDOWS_AT_ONCE] = picture(windows[start : start + _WINDOWS_AT_ONCE], rate)
    return x


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], np.int64)
