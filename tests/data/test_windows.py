"""Windows as views of a recording: the same numbers as copies, and no memory of their own."""

import pickle

import numpy as np
import pytest

from fedimb.data.arrays import SourceData
from fedimb.data.findings.look import look_at
from fedimb.data.store import Store
from fedimb.data.windows import SignalFacts, Windows, overlap_groups, standardised
from fedimb.errors import DataError
from fedimb.shapes import SignalShape, may_be_signal

RECORDING = np.random.default_rng(0).normal(size=(3, 100)).astype(np.float32)
STARTS = np.array([0, 5, 10, 60, 90])


def copies(length=10):
    return np.stack([RECORDING[:, start : start + length] for start in STARTS])


def test_any_rows_are_those_of_the_recording():
    windows = Windows(RECORDING, STARTS, 10)
    assert (len(windows), windows.shape, windows.ndim, windows.nbytes) == (5, (5, 3, 10), 3, 600)
    for rows in (2, slice(1, 4), np.array([4, 0, 4]), np.array([True, False, False, True, False]), slice(0, 0)):
        assert np.array_equal(windows[rows], copies()[rows])
    assert np.array_equal(np.asarray(windows), copies())
    assert np.shares_memory(windows.recording, RECORDING)
    assert np.array_equal(windows.kept(STARTS > 8)[:], copies()[STARTS > 8])
    assert np.array_equal(pickle.loads(pickle.dumps(windows))[:], copies())


def test_a_window_standardised_by_itself_has_mean_0_and_deviation_1():
    made = Windows(RECORDING, STARTS, 10, standardise=True)[:]
    assert np.allclose(made.mean(axis=2), 0, atol=1e-6)
    assert np.allclose(made.std(axis=2), 1, atol=1e-6)
    assert standardised(np.full((1, 1, 4), 3e5 + 0.1, np.float32)).tolist() == [[[0, 0, 0, 0]]]


@pytest.mark.parametrize(("starts", "length"), [([-1], 10), ([91], 10), ([0], 101), ([0], 0)])
def test_a_window_outside_the_recording_is_refused(starts, length):
    with pytest.raises(DataError, match="sample"):
        Windows(RECORDING, np.array(starts), length)


def test_windows_that_share_samples_through_others_are_one_group():
    recordings = np.array([0, 0, 0, 1, 1])
    groups = overlap_groups(recordings, np.array([20, 0, 9, 0, 10]), 10)
    assert groups[1] == groups[2]  # samples 0 to 9 and 9 to 18
    assert len({groups[0], groups[1], groups[3], groups[4]}) == 4  # those that only touch, and another recording's
    assert overlap_groups(recordings, np.array([20, 0, 10, 0, 10]), 10) is None


def test_a_store_of_views_gives_back_the_rows_and_the_hash_of_copies(tmp_path):
    y, signal = np.array([0, 1, 0, 1, 1]), SignalFacts(50.0, ("a", "b", "c"), 10)
    given = {"signal": signal, "origins": STARTS, "scaled": np.ones((3, 1), bool)}
    data = SourceData(Windows(RECORDING, STARTS, 10), y, ("n", "s"), **given)
    viewed = Store.build(data, tmp_path / "v", "f")
    copied = Store.build(SourceData(copies(), y, ("n", "s"), **given), tmp_path / "c", "f")
    assert isinstance(viewed.x.recording, np.memmap)
    assert np.array_equal(viewed.x[:], copies())
    assert viewed.content_sha == copied.content_sha
    assert (viewed.signal, viewed.origins.tolist(), viewed.units) == (signal, STARTS.tolist(), "patients")
    assert isinstance(viewed.input_shape, SignalShape)
    assert (tmp_path / "v" / "x.npy").stat().st_size < RECORDING.nbytes + 200
    assert [line.facts() for line in look_at(data)[0]] == []


def test_a_lead_that_is_off_is_told():
    x = RECORDING.copy()
    x[1, :20] = 0
    data = SourceData(Windows(x, STARTS, 10), np.zeros(5, np.int64), ("n",), signal=SignalFacts(None, ("a", "b", "c")))
    (found,) = look_at(data)[0]
    assert (found.name, found.place, found.severity) == ("constant_windows", "channel b (3)", "note")


def test_facts_that_do_not_fit_the_signals_are_refused():
    y = np.zeros(5, np.int64)
    with pytest.raises(DataError, match=r"channels \['a'\]; give signals \[n, channels, length\]"):
        SourceData(copies(), y, ("n",), signal=SignalFacts(None, ("a",)))
    with pytest.raises(DataError, match=r"\[channels, 1\] for signals"):
        SourceData(copies(), y, ("n",), signal=SignalFacts(), scaled=np.ones(3, bool))
    with pytest.raises(DataError, match="origins is int64"):
        SourceData(copies(), y, ("n",), signal=SignalFacts(), origins=STARTS[:2])


def test_what_may_be_a_signal():
    assert may_be_signal(SignalShape((12, 40)))
    assert may_be_signal((1, 140))
    assert not any(map(may_be_signal, ((12, 40), (28, 28), (3, 32, 32), (13,))))
    assert pickle.loads(pickle.dumps(SignalShape((2, 9)))).__class__ is SignalShape
