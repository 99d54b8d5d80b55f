"""Resampling and spectrograms, against sines whose answer is known."""

from fractions import Fraction

import numpy as np
import pytest

from fedimb.data.signal_transforms import Spectrogram, check_rate, resample, resample_ratio, resampled_length
from fedimb.errors import ConfigError, DataError

RATE = 128


def sine(hertz, seconds=4, rate=RATE, amplitude=1.0):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(seconds * rate) / rate)).astype(np.float32)[None, None]


def test_a_sine_keeps_its_shape_at_another_rate():
    for rate in (64, 256, 96):
        made = resample(sine(5), resample_ratio(RATE, rate))
        assert made.dtype == np.float32
        inner = slice(rate // 2, -rate // 2)  # away from the ends
        assert np.abs(made - sine(5, rate=rate))[..., inner].max() < 0.01


def test_what_the_lower_rate_cannot_hold_is_taken_out_and_not_folded_back():
    made = resample(sine(50), resample_ratio(RATE, 64))  # 50 Hz would show up at 14 Hz
    assert np.abs(made)[..., 32:-32].max() < 0.02


@pytest.mark.parametrize(("samples", "ratio"), [(128, Fraction(1, 3)), (7, Fraction(5, 2)), (1, Fraction(1, 100))])
def test_the_length_is_known_beforehand(samples, ratio):
    x = np.random.default_rng(0).normal(size=(2, 3, samples)).astype(np.float32)
    assert resample(x, ratio).shape == (2, 3, resampled_length(samples, ratio))


def test_a_constant_stays_one_to_its_ends():
    made = resample(np.full((1, 1, 100), 7, np.float32), Fraction(2, 5))
    assert np.allclose(made, 7, rtol=1e-4)  # the filter's own ripple
    x = sine(3)
    assert resample(x, resample_ratio(50.0, 50)) is x


@pytest.mark.parametrize(("rate", "wanted"), [(0, 50), (50, -1), (np.inf, 50), (50.123457, 17.000001)])
def test_rates_without_a_simple_ratio_are_refused(rate, wanted):
    with pytest.raises(ConfigError, match="Hz"):
        resample_ratio(rate, wanted)
    with pytest.raises(DataError, match="a sampling rate of 0 Hz"):
        check_rate("here", None, 0.0)


def test_the_power_of_a_sine_is_in_its_bin():
    """Of amplitude A in bin k of a Hann window, whose sum is N / 2: (A N / 4)^2 there, a quarter of it beside."""
    made = Spectrogram("stft", window=64, hop=32)(sine(20, amplitude=3), RATE)
    assert made.shape == (1, 1, 33, 15)
    power = np.exp(made[0, 0])
    assert np.allclose(power[10], (3 * 64 / 4) ** 2, rtol=1e-3)
    assert np.allclose(power[[9, 11]], (3 * 64 / 8) ** 2, rtol=1e-3)
    assert power[np.r_[0:8, 13:33]].max() < 1e-3


def test_silence_has_the_least_power():
    made = Spectrogram("stft", window=8)(np.zeros((2, 3, 20), np.float32), None)
    assert made.shape == (2, 3, 5, 4)
    assert np.allclose(made, np.log(1e-10))


def test_mel_bands_are_triangles_that_meet_in_each_others_middle():
    weights = Spectrogram("logmel", window=512, bands=20).filters(16_000)
    assert weights.shape == (20, 257)
    assert weights.max() <= 1
    # between the first and the last centre the weights of each bin add up to 1
    sums, edges = weights.sum(axis=0), np.flatnonzero(weights[-1] == weights[-1].max())
    first = int(weights[0].argmax())
    assert np.allclose(sums[first + 1 : int(edges[0])], 1, atol=1e-6)
    # 1000 Hz is 999.99 mel; 20 bands to 8 kHz (2840 mel) are 135.2 mel apart, so it is nearest to the 7th centre
    power = np.exp(Spectrogram("logmel", window=512, bands=20)(sine(1000, 1, 16_000), 16_000))
    assert int(power[0, 0].mean(axis=1).argmax()) == 6


def test_all_bands_together_keep_the_power_between_their_centres():
    x = sine(20)
    whole = np.exp(Spectrogram("stft", window=64)(x, RATE)).sum(axis=2)
    mel = np.exp(Spectrogram("logmel", window=64, bands=8)(x, RATE)).sum(axis=2)
    assert np.allclose(mel, whole, rtol=0.01)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": "logmel", "bands": 80}, "bands hold no frequency"),
        ({"name": "logmel", "bands": 4, "high_hz": 100.0}, "at most half of the rate, 64"),
        ({"name": "logmel", "bands": 4, "low_hz": 30.0, "high_hz": 20.0}, "low_hz below high_hz"),
    ],
)
def test_bands_that_cannot_be_are_refused(settings, reason):
    made = Spectrogram.parse(settings, "it")
    with pytest.raises(ConfigError, match=reason):
        made(sine(20), RATE)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"name": "stft", "windw": 3}, "Did you mean 'window'"),
        ({"name": "stft", "window": 6.5}, "give a whole number"),
        ({"name": "stft", "window": True}, "give a whole number"),
        ({"name": "stft", "window": 1}, "at least 2 samples"),
        ({"name": "stft", "hop": 0}, "a hop and bands of at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(raw, reason):
    with pytest.raises(ConfigError, match=reason):
        Spectrogram.parse(raw, "it")
    assert Spectrogram.parse({"name": "stft", "hop": None}, "it") == Spectrogram()
