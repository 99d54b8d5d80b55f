"""Event-based scores of windows in time: how many events are found, and how often there is a false alarm.

A seizure of a minute is 30 windows of 4 s that overlap by half; finding 20 of them is finding it, and 20 false windows
in a row are one alarm. Scores of windows say neither.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedimb.plain import JsonObject

Spans = NDArray[np.float64]
"""[e, 2] start and end of each event in seconds, in the order of time, apart from each other."""


@dataclass(frozen=True)
class EventScores:
    """Events of one class.

    Attributes:
        events: true events.
        detected: those that a predicted event overlaps.
        false_alarms: predicted events that overlap no true one.
        hours: of recordings that the windows cover, each second once; windows of unknown label are none of them.
    """

    events: int
    detected: int
    false_alarms: int
    hours: float

    @property
    def sensitivity(self) -> float:
        """Share of the true events that are detected; NaN without any."""
        return self.detected / self.events if self.events else math.nan

    @property
    def false_alarms_per_hour(self) -> float:
        """NaN if the windows cover no time."""
        return self.false_alarms / self.hours if self.hours else math.nan

    def facts(self) -> JsonObject:
        """As plain values, for JSON; None where undefined."""
        shares = {"sensitivity": self.sensitivity, "false_alarms_per_hour": self.false_alarms_per_hour}
        return {
            "events": self.events,
            "detected": self.detected,
            "false_alarms": self.false_alarms,
            "hours": self.hours,
            **{name: None if math.isnan(value) else value for name, value in shares.items()},
        }


def event_scores(
    recordings: NDArray[np.int64],
    starts_s: NDArray[np.float64],
    length_s: float,
    true: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    merge_s: float = 0.0,
) -> EventScores:
    """Any-overlap scores (OVLP: Ziyabari, Shah, Golmohammadi, Obeid, Picone, arXiv 1712.10107) of one class.

    Windows of one recording that touch, overlap, or are at most ``merge_s`` apart make one event.

    Args:
        recordings: [n] recording of each window.
        starts_s: [n] its start in the recording, seconds.
        length_s: seconds of a window.
        true, predicted: [n] whether it has the class, and whether it is predicted to.
        merge_s: longest gap inside an event.

    Example:
        >>> at = np.arange(6.0)
        >>> true, said = at == 1, (at == 1) | (at >= 4)
        >>> event_scores(np.zeros(6, int), at, 1.0, true, said).facts()["false_alarms"]
        1
    """
    events = detected = alarms = 0
    seconds = 0.0
    for recording in np.unique(recordings):
        own = recordings == recording
        seconds += float(np.diff(spans(starts_s[own], length_s), axis=1).sum())
        there = spans(starts_s[own & true], length_s, merge_s)
        said = spans(starts_s[own & predicted], length_s, merge_s)
        events += len(there)
        detected += int(overlapped(there, said).sum())
        alarms += int((~overlapped(said, there)).sum())
    return EventScores(events, detected, alarms, seconds / 3600)


def spans(starts_s: NDArray[np.float64], length_s: float, merge_s: float = 0.0) -> Spans:
    """The stretches that windows cover; those at most ``merge_s`` apart are one.

    Example:
        >>> spans(np.array([4.0, 0.0, 1.0]), 2.0).tolist()
        [[0.0, 3.0], [4.0, 6.0]]
    """
    starts = np.sort(starts_s)
    if not len(starts):
        return np.empty((0, 2))
    # A rounding error of the sampling rate is no gap.
    first = np.r_[True, np.diff(starts) > length_s + merge_s + 1e-6 * length_s]
    last = np.r_[first[1:], True]
    return np.stack([starts[first], starts[last] + length_s], axis=1)


def overlapped(one: Spans, other: Spans) -> NDArray[np.bool_]:
    """[e] whether each span of ``one`` shares time with one of ``other``; those that only touch share none."""
    if not len(one) or not len(other):
        return np.zeros(len(one), np.bool_)
    slack = 1e-9 * max(1.0, float(np.abs(other).max()))
    before = np.searchsorted(other[:, 1], one[:, 0] + slack, side="right")  # of ``other``: ended when it began
    within = np.minimum(before, len(other) - 1)
    found: NDArray[np.bool_] = (before < len(other)) & (other[within, 0] < one[:, 1] - slack)
    return found


def events_by_class(
    names: Sequence[str],
    windows: tuple[NDArray[np.int64], NDArray[np.float64], float],
    true: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    known: NDArray[np.bool_],
) -> dict[str, EventScores]:
    """`event_scores` of each class, over the windows of which it is known whether they have it.

    A window that is left out joins no two others: without overlap, an event with one inside is counted as two.

    Args:
        names: of the C classes.
        windows: recordings [n], starts in seconds [n], seconds of a window.
        true, predicted, known: [n, C].
    """
    recordings, starts_s, length_s = windows
    found: dict[str, EventScores] = {}
    for c, name in enumerate(names):
        own = known[:, c]
        found[name] = event_scores(recordings[own], starts_s[own], length_s, true[own, c], predicted[own, c])
    return found
