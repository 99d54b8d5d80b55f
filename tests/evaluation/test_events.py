"""Event-based scores against a count by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedimb.evaluation.events import EventScores, event_scores, overlapped, spans

AT = np.arange(0, 20, 0.5)  # windows of 1 s that overlap by half: one recording of 20.5 s
ONE = np.zeros(len(AT), np.int64)


def between(low, high):
    return (low <= AT) & (high >= AT + 1)


def test_events_by_hand():
    true = between(2, 5) | between(10, 12) | between(16, 18)
    said = between(4, 7) | between(13, 14) | between(15, 15.9) | between(19, 20.5)
    # 2-5 is found by 4-7; 10-12 is missed, 16-18 too; 13-14 and 19-20.5 are false, 15-15.9 holds no window
    scores = event_scores(ONE, AT, 1.0, true, said)
    assert scores == EventScores(3, 1, 2, 20.5 / 3600)
    assert scores.sensitivity == pytest.approx(1 / 3)
    assert scores.false_alarms_per_hour == pytest.approx(2 * 3600 / 20.5)


def test_a_gap_up_to_merge_is_inside_an_event():
    said = between(1, 3) | between(4.5, 6)
    assert [event_scores(ONE, AT, 1.0, between(0, 0), said, gap).false_alarms for gap in (0, 1.4, 1.5)] == [2, 2, 1]


def test_events_of_two_recordings_are_two_and_hours_add_up():
    recordings = np.repeat([7, 3], len(AT))
    at, all_of = np.tile(AT, 2), np.ones(2 * len(AT), bool)
    scores = event_scores(recordings, at, 1.0, all_of, all_of)
    assert (scores.events, scores.detected, scores.false_alarms) == (2, 2, 0)
    assert scores.hours == pytest.approx(2 * 20.5 / 3600)


def test_windows_that_only_touch_an_event_do_not_find_it():
    at, true = np.array([0.0, 1.0, 2.0]), np.array([True, False, False])
    scores = event_scores(np.zeros(3, int), at, 1.0, true, np.array([False, True, False]))
    assert (scores.detected, scores.false_alarms) == (0, 1)


def test_without_events_sensitivity_is_undefined():
    scores = event_scores(ONE, AT, 1.0, ONE > 0, ONE > 0)
    assert math.isnan(scores.sensitivity)
    assert scores.facts()["sensitivity"] is None
    assert scores.false_alarms_per_hour == 0
    assert math.isnan(event_scores(ONE[:0], AT[:0], 1.0, ONE[:0] > 0, ONE[:0] > 0).false_alarms_per_hour)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_as_counted_sample_by_sample(flags):
    true, said = (np.array(column) for column in zip(*flags, strict=True))
    at = np.arange(len(true)) * 0.1 * 3  # not exact in binary
    scores = event_scores(np.zeros(len(true), int), at, 0.3, true, said)

    def runs(flag):
        edges = np.flatnonzero(np.diff(np.r_[0, flag.astype(int), 0]))
        return [set(range(a, b)) for a, b in edges.reshape(-1, 2)]

    there, found = runs(true), runs(said)
    assert scores.events == len(there)
    assert scores.detected == sum(any(a & b for b in found) for a in there)
    assert scores.false_alarms == sum(not any(a & b for b in there) for a in found)
    assert scores.hours == pytest.approx(0.3 * len(true) / 3600)
    assert len(spans(at[true], 0.3)) == len(there)
    assert overlapped(spans(at[true], 0.3), spans(at[true], 0.3)).all()
